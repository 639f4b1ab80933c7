"""Transactions: compare, check, execute.

1. All compares are evaluated, also those of the nested transactions on the chosen path, against the
   state before the transaction. The result is a `Path`.
2. Every operation on the path is checked against that state. The first that cannot be done is the
   answer, and nothing has changed.
3. The operations run in order. Reads see the writes before them. Nothing can fail any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from etcray_storage import errors, wire
from etcray_storage.errors import error_by_number
from etcray_storage.machine.leases import Leases
from etcray_storage.machine.operations import check_put_applies, execute_delete_range, execute_put
from etcray_storage.mvcc.key_index import KeyRecord
from etcray_storage.mvcc.range import execute_range
from etcray_storage.mvcc.store import Store
from etcray_storage.proto.rpc_pb2 import Compare, RangeRequest, RequestOp, TxnRequest


@dataclass(slots=True)
class Path:
    """Which branch of a transaction runs, and the same for the transactions nested in that branch."""

    succeeded: bool
    ops: Sequence[RequestOp]
    nested: list[Path] = field(default_factory=list)
    """One for each nested transaction among `ops`, in order."""


def execute_txn(store: Store, leases: Leases, request: TxnRequest) -> bytes:
    """The body of the TxnResponse. The request has passed `validate.check_txn`, and the store's
    change is open if the request can write.

    Raises KEY_NOT_FOUND, LEASE_NOT_FOUND, FUTURE_REV or COMPACTED before anything changed.
    """
    path = _choose(store, request)
    _check(store, leases, path)
    return _execute(store, path)


def _choose(store: Store, request: TxnRequest) -> Path:
    succeeded = all(_holds(store, compare) for compare in request.compare)
    path = Path(succeeded, request.success if succeeded else request.failure)
    for op in path.ops:
        if op.HasField("request_txn"):
            path.nested.append(_choose(store, op.request_txn))
    return path


def _holds(store: Store, compare: Compare) -> bool:
    """Every key of the compared range must hold; with no key, the pair counts as all zeros, but
    its value compares to nothing."""
    if compare.range_end:
        records = store.index.records(compare.key, compare.range_end)
    else:
        record = store.index.get(compare.key)
        records = [] if record is None else [record]
    if not records:
        return compare.target != Compare.VALUE and _compare_record(compare, _MISSING)
    return all(_compare_record(compare, record) for record in records)


_MISSING = KeyRecord(b"", b"", 0, 0, 0, 0)


def _compare_record(compare: Compare, record: KeyRecord) -> bool:
    """A target_union that does not fit the target counts as zero or empty. An unknown target is
    equal to anything; an unknown result always holds."""
    actual: int | bytes = 0
    expected: int | bytes = 0
    match compare.target:
        case Compare.VERSION:
            actual, expected = record.version, compare.version
        case Compare.CREATE:
            actual, expected = record.create_revision, compare.create_revision
        case Compare.MOD:
            actual, expected = record.mod_revision, compare.mod_revision
        case Compare.LEASE:
            actual, expected = record.lease, compare.lease
        case Compare.VALUE:
            actual, expected = record.value(), compare.value
    match compare.result:
        case Compare.EQUAL:
            return actual == expected
        case Compare.NOT_EQUAL:
            return actual != expected
        case Compare.GREATER:
            return actual > expected  # type: ignore[operator]  # both are int or both bytes
        case Compare.LESS:
            return actual < expected  # type: ignore[operator]
    return True


def _check(store: Store, leases: Leases, path: Path) -> None:
    nested = iter(path.nested)
    for op in path.ops:
        match op.WhichOneof("request"):
            case "request_range":
                _check_range_applies(store, op.request_range)
            case "request_put":
                check_put_applies(store, leases, op.request_put)
            case "request_txn":
                _check(store, leases, next(nested))


def _check_range_applies(store: Store, request: RangeRequest) -> None:
    """Unlike a range outside of a transaction, one with a revision below 0 is not simply about the
    newest revision: it has to pass the comparison with the compacted one (-1 on a store that never
    was compacted)."""
    if request.revision == 0:
        return
    if request.revision > store.revision:
        raise error_by_number(errors.FUTURE_REV.number)
    if request.revision < store.compact_revision:
        raise error_by_number(errors.COMPACTED.number)


def _execute(store: Store, path: Path) -> bytes:
    """Inner responses have headers with nothing but the revision that the operation saw or made;
    the header of an inner transaction is there, but empty."""
    responses: list[bytes] = []
    nested = iter(path.nested)
    for op in path.ops:
        match op.WhichOneof("request"):
            case "request_range":
                number, body = 1, execute_range(store, op.request_range)
                header = wire.revision_header(store.visible_revision)
            case "request_put":
                number, body = 2, execute_put(store, op.request_put)
                header = wire.revision_header(store.visible_revision)
            case "request_delete_range":
                number, body = 3, execute_delete_range(store, op.request_delete_range)
                header = wire.revision_header(store.visible_revision)
            case _:
                number, body = 4, _execute(store, next(nested))
                header = wire.EMPTY_HEADER
        responses.append(wire.bytes_field(number, header + body))
    return wire.txn_response(path.succeeded, responses)
