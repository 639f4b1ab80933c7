"""What can be said about a request without looking at the store.

Gateways call these before a request enters the log, so that a bad one costs no consensus. Apply calls
them again, because a log entry must never be able to stop the members that apply it, whatever a
gateway let through.

The checks and their order are etcd's, because clients see which error comes first. One rule is
stricter: a key may change only once in a transaction, so that (key, main revision) names a row. etcd
means the same, but two shapes slip through its check: a put beside a delete with an open end, and a
put in a nested transaction that stands before a sibling which deletes the key. Here both are
DUPLICATE_KEY.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from etcray_storage import errors
from etcray_storage.errors import EtcdError, error_by_number
from etcray_storage.mvcc.key_index import UNBOUNDED
from etcray_storage.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

_SORT_ORDER_MAX = max(RangeRequest.SortOrder.values())
_SORT_TARGET_MAX = max(RangeRequest.SortTarget.values())

Interval = tuple[bytes, bytes]
"""Start, end; the end is empty for a single key."""


def _refuse(error: EtcdError) -> NoReturn:
    raise error_by_number(error.number)


def check_range(request: RangeRequest) -> None:
    """Raises EMPTY_KEY, INVALID_SORT_OPTION."""
    if not request.key:
        _refuse(errors.EMPTY_KEY)
    if not 0 <= request.sort_order <= _SORT_ORDER_MAX or not 0 <= request.sort_target <= _SORT_TARGET_MAX:
        _refuse(errors.INVALID_SORT_OPTION)


def check_put(request: PutRequest) -> None:
    """Raises EMPTY_KEY, VALUE_PROVIDED, LEASE_PROVIDED."""
    if not request.key:
        _refuse(errors.EMPTY_KEY)
    if request.ignore_value and request.value:
        _refuse(errors.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        _refuse(errors.LEASE_PROVIDED)


def check_delete_range(request: DeleteRangeRequest) -> None:
    """Raises EMPTY_KEY."""
    if not request.key:
        _refuse(errors.EMPTY_KEY)


def check_txn(request: TxnRequest, ops_max: int) -> None:
    """Raises TOO_MANY_OPS, EMPTY_KEY, KEY_NOT_FOUND (an operation that is none), what the checks of
    the operations raise, and DUPLICATE_KEY. A nested transaction may use what its parent's longest
    list leaves of `ops_max`."""
    _check_txn_ops(request, ops_max)
    _check_changes(request.success)
    _check_changes(request.failure)


def _check_txn_ops(request: TxnRequest, ops_max: int) -> None:
    widest = max(len(request.compare), len(request.success), len(request.failure))
    if widest > ops_max:
        _refuse(errors.TOO_MANY_OPS)
    for compare in request.compare:
        if not compare.key:
            _refuse(errors.EMPTY_KEY)
    for ops in (request.success, request.failure):
        for op in ops:
            _check_op(op, ops_max - widest)


def _check_op(op: RequestOp, ops_max: int) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            check_range(op.request_range)
        case "request_put":
            check_put(op.request_put)
        case "request_delete_range":
            check_delete_range(op.request_delete_range)
        case "request_txn":
            _check_txn_ops(op.request_txn, ops_max)
        case None:
            _refuse(errors.KEY_NOT_FOUND)


def _check_changes(ops: Sequence[RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """Raises DUPLICATE_KEY if a key could change twice when all `ops` run. Returns what they may put
    and what they may delete."""
    if len(ops) == 1 and ops[0].HasField("request_put"):  # the usual transaction
        return {ops[0].request_put.key}, []
    puts: set[bytes] = set()
    deletes: list[Interval] = []
    for op in ops:
        match op.WhichOneof("request"):
            case "request_put":
                new_puts, new_deletes = {op.request_put.key}, []
            case "request_delete_range":
                new_puts, new_deletes = (
                    set(),
                    [(op.request_delete_range.key, op.request_delete_range.range_end)],
                )
            case "request_txn":
                # Only one branch runs: the two may change the same keys.
                success_puts, success_deletes = _check_changes(op.request_txn.success)
                failure_puts, failure_deletes = _check_changes(op.request_txn.failure)
                new_puts = success_puts | failure_puts
                new_deletes = success_deletes + failure_deletes
            case _:
                continue
        if not puts.isdisjoint(new_puts) or _hit(deletes, new_puts) or _hit(new_deletes, puts):
            _refuse(errors.DUPLICATE_KEY)
        puts |= new_puts
        deletes += new_deletes
    return puts, deletes


def _hit(deletes: list[Interval], keys: Iterable[bytes]) -> bool:
    """Whether one of the keys is in one of the intervals."""
    for key in keys:
        for start, end in deletes:
            if start <= key and (key < end or end == UNBOUNDED if end else key == start):
                return True
    return False


def is_read_only_txn(request: TxnRequest) -> bool:
    """Whether both branches hold nothing but ranges: such a transaction need not enter the log. A
    nested transaction counts as a write, even if it only reads. An empty one is read-only."""
    return all(op.HasField("request_range") for ops in (request.success, request.failure) for op in ops)


def is_serializable_txn(request: TxnRequest) -> bool:
    """Whether every operation is a serializable range: then any member may answer from what it has."""
    return all(
        op.HasField("request_range") and op.request_range.serializable
        for ops in (request.success, request.failure)
        for op in ops
    )


def has_put(request: TxnRequest) -> bool:
    """Whether a branch, also a nested one, holds a put: such a transaction needs space."""
    for ops in (request.success, request.failure):
        for op in ops:
            if op.HasField("request_put") or (op.HasField("request_txn") and has_put(op.request_txn)):
                return True
    return False
