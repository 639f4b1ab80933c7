"""Every difference between etcray and an older etcd that is meant, with its reason. Nothing else may differ.

There are two kinds. Some requests must not be sent to the oracle at all, because it would crash or
change its state where etcray refuses: `UNASKED` says for these what etcray has to answer. All others go
to both sides, and if the answers differ, one entry of `MEANT` has to explain it completely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from etcray_storage import errors
from etcray_storage.errors import Code, EtcdError
from etcray_storage.limits import TXN_OPS_MAX
from etcray_storage.mvcc.key_index import UNBOUNDED
from etcray_storage.proto.kv_pb2 import KeyValue
from etcray_storage.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from tests.differential.calls import Answer, Request


@dataclass(frozen=True)
class Unasked:
    """Requests that only etcray is asked."""

    name: str
    reason: str
    applies: Callable[[Request], bool]
    answer: EtcdError
    """What etcray has to say."""


@dataclass(frozen=True)
class Meant:
    """Answers that may differ, and how."""

    name: str
    reason: str
    explains: Callable[[Request, Answer, Answer], bool]
    """Whether, the oracle's answer being the first, this is the whole difference."""


# --- requests that the oracle is not asked -----------------------------------------------------


def sorts_invalidly(request: Request) -> bool:
    """An unknown sort option in an otherwise well-formed request."""
    if isinstance(request, RangeRequest):
        return bool(request.key) and _has_unknown_sort(request)
    return (
        isinstance(request, TxnRequest)
        and not is_malformed(request)
        and not _refused_as_duplicate(request)
        and any(_has_unknown_sort(each) for each in _all_ranges(request))
    )


def changes_a_key_twice_unnoticed(request: Request) -> bool:
    """A transaction in which one key could change twice, and etcd's check does not see it."""
    return (
        isinstance(request, TxnRequest)
        and not is_malformed(request)
        and not _refused_as_duplicate(request)
        and not any(_has_unknown_sort(each) for each in _all_ranges(request))
        and (_changes_twice(request.success) or _changes_twice(request.failure))
    )


def is_malformed(request: TxnRequest, ops_max: int = TXN_OPS_MAX) -> bool:
    """Whether every version refuses it for a reason that needs no look at keys of other operations."""
    widest = max(len(request.compare), len(request.success), len(request.failure))
    if widest > ops_max or not all(compare.key for compare in request.compare):
        return True
    return any(_is_malformed_op(op, ops_max - widest) for op in (*request.success, *request.failure))


def _is_malformed_op(op: RequestOp, ops_max: int) -> bool:
    match op.WhichOneof("request"):
        case "request_range":
            return not op.request_range.key
        case "request_put":
            put = op.request_put
            return not put.key or bool(put.ignore_value and put.value) or bool(put.ignore_lease and put.lease)
        case "request_delete_range":
            return not op.request_delete_range.key
        case "request_txn":
            return is_malformed(op.request_txn, ops_max)
    return True


def _has_unknown_sort(request: RangeRequest) -> bool:
    return (
        request.sort_order not in RangeRequest.SortOrder.values()
        or request.sort_target not in RangeRequest.SortTarget.values()
    )


def _all_ranges(request: TxnRequest) -> list[RangeRequest]:
    found: list[RangeRequest] = []
    for op in (*request.success, *request.failure):
        if op.HasField("request_range"):
            found.append(op.request_range)
        elif op.HasField("request_txn"):
            found += _all_ranges(op.request_txn)
    return found


def _all_puts(request: TxnRequest) -> list[PutRequest]:
    found: list[PutRequest] = []
    for op in (*request.success, *request.failure):
        if op.HasField("request_put"):
            found.append(op.request_put)
        elif op.HasField("request_txn"):
            found += _all_puts(op.request_txn)
    return found


@dataclass(frozen=True)
class Changes:
    """What operations may put and delete, whichever branches run."""

    puts: frozenset[bytes]
    deletes: tuple[DeleteRangeRequest, ...]


def _refused_as_duplicate(request: TxnRequest) -> bool:
    return _etcd_changes(request.success) is None or _etcd_changes(request.failure) is None


def _etcd_changes(ops: Sequence[RequestOp]) -> Changes | None:
    """etcd's check: None if it refuses. It looks at the deletes of this level first, then at the nested
    transactions in order, then at the puts of this level."""
    deletes = [op.request_delete_range for op in ops if op.HasField("request_delete_range")]
    puts: set[bytes] = set()
    for op in ops:
        if not op.HasField("request_txn"):
            continue
        success, failure = _etcd_changes(op.request_txn.success), _etcd_changes(op.request_txn.failure)
        if success is None or failure is None:
            return None
        nested = success.puts | failure.puts
        if puts & nested or any(_deleted_for_etcd(key, deletes) for key in nested):
            return None
        puts |= nested
        deletes += [*success.deletes, *failure.deletes]
    for op in ops:
        if op.HasField("request_put"):
            key = op.request_put.key
            if key in puts or _deleted_for_etcd(key, deletes):
                return None
            puts.add(key)
    return Changes(frozenset(puts), tuple(deletes))


def _deleted_for_etcd(key: bytes, deletes: Sequence[DeleteRangeRequest]) -> bool:
    """An open end counts as a range that is empty."""
    return any(each.range_end != UNBOUNDED and _deletes(each, key) for each in deletes)


def _deletes(request: DeleteRangeRequest, key: bytes) -> bool:
    if not request.range_end:
        return key == request.key
    return request.key <= key and (request.range_end == UNBOUNDED or key < request.range_end)


def _changes_twice(ops: Sequence[RequestOp]) -> bool:
    """etcray's rule: no key may be put twice, or both put and deleted."""
    before = Changes(frozenset(), ())
    for op in ops:
        if op.HasField("request_txn"):
            nested = op.request_txn
            if _changes_twice(nested.success) or _changes_twice(nested.failure):
                return True
        now = _changes([op])
        if now.puts & before.puts:
            return True
        pairs = [(now.puts, before.deletes), (before.puts, now.deletes)]
        if any(_deletes(delete, key) for puts, deletes in pairs for key in puts for delete in deletes):
            return True
        before = Changes(before.puts | now.puts, before.deletes + now.deletes)
    return False


def _changes(ops: Sequence[RequestOp]) -> Changes:
    puts: set[bytes] = set()
    deletes: list[DeleteRangeRequest] = []
    for op in ops:
        match op.WhichOneof("request"):
            case "request_put":
                puts.add(op.request_put.key)
            case "request_delete_range":
                deletes.append(op.request_delete_range)
            case "request_txn":
                nested = _changes([*op.request_txn.success, *op.request_txn.failure])
                puts |= nested.puts
                deletes += nested.deletes
    return Changes(frozenset(puts), tuple(deletes))


UNASKED: Final = (
    Unasked(
        name="unknown sort option",
        reason="Refused since 3.6. Before, an unknown target stops the whole etcd process.",
        applies=sorts_invalidly,
        answer=errors.INVALID_SORT_OPTION,
    ),
    Unasked(
        name="a key that changes twice in one transaction",
        reason="etcd means to refuse it, but misses a put beside a delete with an open end, and a put in a"
        " nested transaction before a sibling that deletes the key. etcray names a row by key and main"
        " revision, so it refuses all of them.",
        applies=changes_a_key_twice_unnoticed,
        answer=errors.DUPLICATE_KEY,
    ),
)


# --- answers that differ -----------------------------------------------------------------------


def differs_in_ties_only(request: Request, oracle: Answer, subject: Answer) -> bool:
    """Only the order of keys with equal sort keys differs, or which of them the limit cut off."""
    if oracle.response is None or subject.response is None:
        return False
    levelled = type(subject.response)()
    levelled.MergeFrom(subject.response)  # type: ignore[arg-type]
    for asked, expected, got in _range_pairs(request, oracle.response, levelled):
        if not _same_up_to_ties(asked, expected, got):
            return False
        del got.kvs[:]
        got.kvs.extend(expected.kvs)
    return levelled == oracle.response


def _range_pairs(
    request: object, first: object, second: object
) -> list[tuple[RangeRequest, RangeResponse, RangeResponse]]:
    """Every range that was executed, with both answers, also those in transactions."""
    if isinstance(request, RangeRequest):
        assert isinstance(first, RangeResponse)
        assert isinstance(second, RangeResponse)
        return [(request, first, second)]
    if not isinstance(request, TxnRequest):
        return []
    assert isinstance(first, TxnResponse)
    assert isinstance(second, TxnResponse)
    if first.succeeded != second.succeeded or len(first.responses) != len(second.responses):
        return []
    pairs = []
    ops = request.success if first.succeeded else request.failure
    for op, one, other in zip(ops, first.responses, second.responses, strict=True):
        if one.WhichOneof("response") != other.WhichOneof("response"):
            return []
        if op.HasField("request_range"):
            pairs.append((op.request_range, one.response_range, other.response_range))
        elif op.HasField("request_txn"):
            pairs += _range_pairs(op.request_txn, one.response_txn, other.response_txn)
    return pairs


def _same_up_to_ties(request: RangeRequest, first: RangeResponse, second: RangeResponse) -> bool:
    if request.sort_target == RangeRequest.KEY or len(first.kvs) != len(second.kvs):
        return list(first.kvs) == list(second.kvs)
    ties = [_ties(request, response.kvs) for response in (first, second)]
    if [(key, len(group)) for key, group in ties[0]] != [(key, len(group)) for key, group in ties[1]]:
        return False
    complete = len(ties[0]) - 1 if first.more else len(ties[0])
    return ties[0][:complete] == ties[1][:complete]


def _ties(request: RangeRequest, kvs: Sequence[KeyValue]) -> list[tuple[object, list[bytes]]]:
    """Runs of equal sort keys, each in one defined order. Keys-only answers do not show the values, so
    sorted by value they count as one run."""

    def sort_key(kv: KeyValue) -> object:
        match request.sort_target:
            case RangeRequest.VERSION:
                return kv.version
            case RangeRequest.CREATE:
                return kv.create_revision
            case RangeRequest.MOD:
                return kv.mod_revision
        return b"" if request.keys_only else kv.value

    return [(key, sorted(kv.SerializeToString() for kv in run)) for key, run in groupby(kvs, sort_key)]


def is_malformed_in_two_ways(request: Request, oracle: Answer, subject: Answer) -> bool:
    """etcray names the sort option, the oracle the other mistake."""
    return (
        isinstance(request, TxnRequest)
        and any(_has_unknown_sort(each) for each in _all_ranges(request))
        and oracle.code == Code.INVALID_ARGUMENT
        and subject.message == errors.INVALID_SORT_OPTION.message
    )


def checks_in_order(request: Request, oracle: Answer, subject: Answer) -> bool:
    """The chosen path holds an impossible range before an impossible put; the oracle looks at puts first."""
    return (
        isinstance(request, TxnRequest)
        and oracle.message in (errors.KEY_NOT_FOUND.message, errors.LEASE_NOT_FOUND.message)
        and subject.message in (errors.FUTURE_REV.message, errors.COMPACTED.message)
        and any(each.revision != 0 for each in _all_ranges(request))
        and any(each.lease or each.ignore_value or each.ignore_lease for each in _all_puts(request))
    )


def looks_for_the_lease_first(request: Request, oracle: Answer, subject: Answer) -> bool:
    """The chosen path holds a put that both names an unknown lease and keeps the value of a missing key."""
    return (
        isinstance(request, TxnRequest)
        and oracle.message == errors.KEY_NOT_FOUND.message
        and subject.message == errors.LEASE_NOT_FOUND.message
        and any(each.lease and each.ignore_value for each in _all_puts(request))
    )


MEANT: Final = (
    Meant(
        name="order of ties",
        reason="etcd's sort is not stable, and differs between releases of Go. etcray's keeps key order.",
        explains=differs_in_ties_only,
    ),
    Meant(
        name="unknown sort option beside another mistake",
        reason="Checked since 3.6, operation by operation, so it can come before the other mistake.",
        explains=is_malformed_in_two_ways,
    ),
    Meant(
        name="order of checks in a transaction",
        reason="Up to 3.5 all puts are checked before all ranges, since 3.6 all operations in their order.",
        explains=checks_in_order,
    ),
    Meant(
        name="order of checks of a put in a transaction",
        reason="Up to 3.6 the missing key comes before the unknown lease, since 3.7 it is as outside.",
        explains=looks_for_the_lease_first,
    ),
)


def unasked(request: Request) -> Unasked | None:
    return next((entry for entry in UNASKED if entry.applies(request)), None)


def meant(request: Request, oracle: Answer, subject: Answer) -> Meant | None:
    return next((entry for entry in MEANT if entry.explains(request, oracle, subject)), None)
