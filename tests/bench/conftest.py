"""A real etcd and a gateway of etcray for all tests of this folder."""

from tests.servers import etcd, gateway, server

__all__ = ["etcd", "gateway", "server"]
