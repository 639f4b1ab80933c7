"""One call, one answer, and the side that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc
from google.protobuf.text_format import MessageToString

from etcray_storage.errors import Code
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)

Request = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest | CompactionRequest
Response = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse | CompactionResponse

_METHODS: Final[dict[type[Request], tuple[str, type[Response]]]] = {
    RangeRequest: ("/etcdserverpb.KV/Range", RangeResponse),
    PutRequest: ("/etcdserverpb.KV/Put", PutResponse),
    DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", DeleteRangeResponse),
    TxnRequest: ("/etcdserverpb.KV/Txn", TxnResponse),
    CompactionRequest: ("/etcdserverpb.KV/Compact", CompactionResponse),
}

TIMEOUT_SECONDS: Final = 60.0
SHOWN_CHARACTERS_MAX: Final = 6_000
"""Of one message in a report: a large value must not bury the rest."""


@dataclass(frozen=True)
class Call:
    """A request; its type names the method."""

    request: Request

    @property
    def method(self) -> str:
        return _METHODS[type(self.request)][0]

    def __str__(self) -> str:
        return f"{self.method} {{\n{_show(self.request)}}}"


@dataclass(frozen=True)
class Answer:
    """What a client sees, without what has to differ between two clusters."""

    code: Code
    message: str
    response: Response | None
    """None if there was an error."""

    def __str__(self) -> str:
        if self.response is None:
            return f"{self.code.name}: {self.message}"
        return f"{{\n{_show(self.response)}}}"


def _show(message: Request | Response) -> str:
    text = MessageToString(message, use_index_order=True)
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = f"{text[:SHOWN_CHARACTERS_MAX]}\n... {len(text) - SHOWN_CHARACTERS_MAX} characters more\n"
    return text


class PendingAnswer:
    """A call that is on its way."""

    def __init__(self, future: grpc.CallFuture[Response]) -> None:
        self._future = future

    def wait(self) -> Answer:
        try:
            response = self._future.result()
        except grpc.RpcError:
            code = Code(self._future.code().value[0])
            return Answer(code, self._future.details() or "", None)
        hide_identity(response.header)
        return Answer(Code.OK, "", response)


def hide_identity(header: ResponseHeader) -> None:
    """Ids and terms differ between any two clusters; the revision must not."""
    header.cluster_id = 0
    header.member_id = 0
    header.raft_term = 0


class Side:
    """One of the two stores that are compared. A context manager: leaving it closes the channel."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(
            endpoint,
            options=(
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ),
        )
        self._methods = {
            request: self._channel.unary_unary(path, request.SerializeToString, response.FromString)
            for request, (path, response) in _METHODS.items()
        }

    def start(self, call: Call) -> PendingAnswer:
        return PendingAnswer(self._methods[type(call.request)].future(call.request, timeout=TIMEOUT_SECONDS))

    def ask(self, call: Call) -> Answer:
        return self.start(call).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
