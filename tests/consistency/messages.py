"""Between the records of a history and etcd's own messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from etcray_storage.errors import COMPACTED, FUTURE_REV, Code
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import rpc_pb2 as rpc
from tests.consistency.history import (
    Answer,
    Compact,
    CompactAnswer,
    Compare,
    Delete,
    DeleteAnswer,
    Event,
    Outcome,
    Pair,
    Put,
    PutAnswer,
    Range,
    RangeAnswer,
    Refusal,
    Request,
    Target,
    Txn,
    TxnAnswer,
)

METHODS: Final = {
    Put: "/etcdserverpb.KV/Put",
    Delete: "/etcdserverpb.KV/DeleteRange",
    Range: "/etcdserverpb.KV/Range",
    Txn: "/etcdserverpb.KV/Txn",
    Compact: "/etcdserverpb.KV/Compact",
}

_NEVER_EXECUTED: Final = frozenset(
    (
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.DATA_LOSS,
        Code.UNAUTHENTICATED,
    )
)
"""Said of the request by whoever looked at it, before it was proposed or when it was applied without
effect. Everything else (Unavailable, DeadlineExceeded, Canceled, Unknown, Internal, Aborted) is said of
the way there, and the request may still be under way."""


def outcome_of_error(code: int, message: str) -> tuple[Outcome, Refusal | None]:
    """What a gRPC error means to the client who gets it."""
    if code not in _NEVER_EXECUTED:
        return Outcome.UNKNOWN, None
    if message == COMPACTED.message:
        return Outcome.REFUSED, Refusal.COMPACTED
    if message == FUTURE_REV.message:
        return Outcome.REFUSED, Refusal.FUTURE_REVISION
    return Outcome.REFUSED, Refusal.OTHER


# --- requests -----------------------------------------------------------------------------------


def encode(request: Request) -> bytes:
    """The request's message, as a client sends it."""
    return message_of(request).SerializeToString()


def message_of(
    request: Request,
) -> rpc.PutRequest | rpc.DeleteRangeRequest | rpc.RangeRequest | rpc.TxnRequest | rpc.CompactionRequest:
    if isinstance(request, Put):
        return rpc.PutRequest(key=request.key, value=request.value, prev_kv=request.prev_kv)
    if isinstance(request, Delete):
        return rpc.DeleteRangeRequest(key=request.key, range_end=request.range_end, prev_kv=request.prev_kv)
    if isinstance(request, Range):
        return rpc.RangeRequest(
            key=request.key,
            range_end=request.range_end,
            revision=request.revision,
            limit=request.limit,
            count_only=request.count_only,
            serializable=request.serializable,
        )
    if isinstance(request, Compact):
        return rpc.CompactionRequest(revision=request.revision)
    return rpc.TxnRequest(
        compare=[_compare_message(compare) for compare in request.compares],
        success=[_part_message(part) for part in request.success],
        failure=[_part_message(part) for part in request.failure],
    )


def _compare_message(compare: Compare) -> rpc.Compare:
    message = rpc.Compare(
        key=compare.key,
        target=rpc.Compare.CompareTarget.Name(compare.target),
        result=rpc.Compare.CompareResult.Name(compare.relation),
    )
    if isinstance(compare.operand, bytes):
        message.value = compare.operand
    elif compare.target is Target.VERSION:
        message.version = compare.operand
    elif compare.target is Target.CREATE:
        message.create_revision = compare.operand
    else:
        message.mod_revision = compare.operand
    return message


def _part_message(part: Request) -> rpc.RequestOp:
    message = message_of(part)
    if isinstance(message, rpc.PutRequest):
        return rpc.RequestOp(request_put=message)
    if isinstance(message, rpc.DeleteRangeRequest):
        return rpc.RequestOp(request_delete_range=message)
    if isinstance(message, rpc.RangeRequest):
        return rpc.RequestOp(request_range=message)
    assert isinstance(message, rpc.TxnRequest), f"{part} inside a transaction"
    return rpc.RequestOp(request_txn=message)


# --- answers ------------------------------------------------------------------------------------


class AnswerReader:
    """Reads answers. Equal pairs become the same object, for a history shows each of them many times."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, Pair] = {}

    def read(self, request: Request, message: bytes) -> tuple[Answer, int, int]:
        """The answer, the revision of its header and the member that gave it."""
        if isinstance(request, Put):
            put = rpc.PutResponse.FromString(message)
            return self._put(put), put.header.revision, put.header.member_id
        if isinstance(request, Range):
            found = rpc.RangeResponse.FromString(message)
            return self._range(found), found.header.revision, found.header.member_id
        if isinstance(request, Delete):
            deleted = rpc.DeleteRangeResponse.FromString(message)
            return self._delete(deleted), deleted.header.revision, deleted.header.member_id
        if isinstance(request, Txn):
            txn = rpc.TxnResponse.FromString(message)
            return self._txn(txn), txn.header.revision, txn.header.member_id
        compaction = rpc.CompactionResponse.FromString(message)
        return CompactAnswer(), compaction.header.revision, compaction.header.member_id

    def _put(self, message: rpc.PutResponse) -> PutAnswer:
        return PutAnswer(self._pair(message.prev_kv) if message.HasField("prev_kv") else None)

    def _range(self, message: rpc.RangeResponse) -> RangeAnswer:
        return RangeAnswer(self._all(message.kvs), message.count, message.more)

    def _delete(self, message: rpc.DeleteRangeResponse) -> DeleteAnswer:
        return DeleteAnswer(message.deleted, self._all(message.prev_kvs))

    def _txn(self, message: rpc.TxnResponse) -> TxnAnswer:
        return TxnAnswer(message.succeeded, tuple(self._part(part) for part in message.responses))

    def _part(self, message: rpc.ResponseOp) -> Answer:
        which = message.WhichOneof("response")
        if which == "response_put":
            return self._put(message.response_put)
        if which == "response_range":
            return self._range(message.response_range)
        if which == "response_delete_range":
            return self._delete(message.response_delete_range)
        assert which == "response_txn", f"a transaction was answered with {which}"
        return self._txn(message.response_txn)

    def _all(self, messages: Iterable[kv.KeyValue]) -> tuple[Pair, ...]:
        return tuple(self._pair(message) for message in messages)

    def _pair(self, message: kv.KeyValue) -> Pair:
        pair = (
            message.key,
            message.value,
            message.create_revision,
            message.mod_revision,
            message.version,
        )
        return self._pairs.setdefault(pair, pair)


def event_of(message: kv.Event, received: float = 0.0) -> Event:
    pair = message.kv
    if message.type == kv.Event.DELETE:
        return Event(pair.mod_revision, pair.key, None, received=received)
    return Event(pair.mod_revision, pair.key, pair.value, pair.create_revision, pair.version, received)
