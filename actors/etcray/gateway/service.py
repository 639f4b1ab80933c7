"""What every etcd service of a gateway needs: the dispatcher, the cluster's name and the header."""

from __future__ import annotations

import msgspec

from etcray.gateway.dispatcher import Dispatcher, Reply
from etcray.gateway.grpc import Call
from etcray_storage import limits, wire
from etcray_storage.errors import NO_LEADER, REQUEST_TOO_LARGE, error_by_number
from etcray_storage.types import ClusterId

SERVER_VERSION = "3.7.1"
"""The version of etcd whose API this is: clients decide by it what they may use."""
CLUSTER_VERSION = "3.7.0"
STORAGE_VERSION = "3.7.0"


class ServiceContext(msgspec.Struct):
    """Shared by the services of one gateway."""

    cluster_id: ClusterId
    dispatcher: Dispatcher
    endpoints: list[str]
    """The client URLs that the gateways advertise; replaced as a whole when they change."""

    def answer(self, reply: Reply) -> bytes:
        """The response message: header and body."""
        return wire.response_header(self.cluster_id, reply.member, reply.revision, reply.term) + reply.body

    async def admit(self, call: Call) -> None:
        """Refuse a call that asks for a leader while there is none."""
        if call.metadata("hasleader") == "true" and not await self.dispatcher.has_leader():
            raise error_by_number(NO_LEADER.number)


def check_size(request: bytes) -> None:
    """Refuse what must not enter the log."""
    if len(request) > limits.REQUEST_BYTES_MAX:
        raise error_by_number(REQUEST_TOO_LARGE.number)
