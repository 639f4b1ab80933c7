"""What every etcd service of a gateway needs: the dispatcher, the cluster's name and the header."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from etcray.gateway.dispatcher import Dispatcher, Reply
from etcray.gateway.grpc import Answer, Call
from etcray_storage import limits, wire
from etcray_storage.errors import NO_LEADER, REQUEST_TOO_LARGE, EtcdError, error_by_number
from etcray_storage.types import ClusterId, MemberId, Term

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
    _header_key: tuple[MemberId, Term] | None = None
    """Who answered last: nearly always the same leader, so most of its headers is kept."""
    _header_start: bytes = b""
    _header_end: bytes = b""

    def answer(self, reply: Reply) -> bytes:
        """The response message: header and body."""
        key = (reply.member, reply.term)
        if key != self._header_key:
            self._header_key = key
            self._header_start = wire.varint_field(1, self.cluster_id) + wire.varint_field(2, reply.member)
            self._header_end = wire.varint_field(4, reply.term)
        revision = wire.varint_field(3, reply.revision)
        return wire.bytes_field(1, self._header_start + revision + self._header_end) + reply.body

    def admit(self, call: Call) -> Awaitable[None] | None:
        """Refuse a call that asks for a leader while there is none."""
        return self._require_leader() if call.metadata("hasleader") == "true" else None

    async def _require_leader(self) -> None:
        if not await self.dispatcher.has_leader():
            raise error_by_number(NO_LEADER.number)


class Waiting:
    """A `Ticket` of the dispatcher for a call whose response is the cluster's answer as it is."""

    __slots__ = ("_answer", "_context")

    def __init__(self, context: ServiceContext, answer: Answer) -> None:
        self._context = context
        self._answer = answer

    def done(self) -> bool:
        return self._answer.is_over

    def set_result(self, reply: Reply) -> None:
        self._answer.respond(self._context.answer(reply))

    def set_exception(self, error: EtcdError) -> None:
        self._answer.fail(error)


def check_size(request: bytes) -> None:
    """Refuse what must not enter the log."""
    if len(request) > limits.REQUEST_BYTES_MAX:
        raise error_by_number(REQUEST_TOO_LARGE.number)
