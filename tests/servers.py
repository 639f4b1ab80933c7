"""Fixtures for what must not need to know whom it talks to: a real etcd, and a gateway of etcray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etcray_bench.etcd import EtcdCluster
from tests.gateway.serving import ServingGateway


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def gateway() -> Iterator[ServingGateway]:
    with ServingGateway() as serving:
        yield serving


@pytest.fixture(params=["etcd", "etcray"])
def server(request: pytest.FixtureRequest) -> str:
    """An endpoint of each."""
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd")
        return cluster.endpoints[0]
    serving: ServingGateway = request.getfixturevalue("gateway")
    return serving.address
