"""Arguments to request messages, once for both clients and for the operations of a transaction."""

from __future__ import annotations

from typing import Final, Literal, Self, TypedDict, Unpack

from etcray.client.compare import Condition
from etcray.client.values import Data, key_interval, to_bytes
from etcray_storage.proto import rpc_pb2

SortTarget = Literal["key", "version", "create", "mod", "value"]

_SORT_TARGETS: Final[dict[str, rpc_pb2.RangeRequest.SortTarget]] = {
    "key": rpc_pb2.RangeRequest.SortTarget.KEY,
    "version": rpc_pb2.RangeRequest.SortTarget.VERSION,
    "create": rpc_pb2.RangeRequest.SortTarget.CREATE,
    "mod": rpc_pb2.RangeRequest.SortTarget.MOD,
    "value": rpc_pb2.RangeRequest.SortTarget.VALUE,
}


class PutOptions(TypedDict, total=False):
    """What a put may say beyond key and value."""

    lease: int
    """Attach the key to this lease; 0 detaches it from any."""
    prev_kv: bool
    """Answer with the pair that this put replaced."""
    ignore_value: bool
    """Keep the current value (the one given must be empty); the key must exist."""
    ignore_lease: bool
    """Keep the current lease; the key must exist."""


class FilterOptions(TypedDict, total=False):
    """What any range may say beyond its keys."""

    revision: int
    """Read the state as of this revision; 0 means now."""
    limit: int
    """At most so many pairs; 0 means all. `RangeResult.more` tells whether some were left."""
    sort: SortTarget
    """By what the pairs are ordered; by key unless told otherwise."""
    descending: bool
    """Largest first."""
    serializable: bool
    """Answer from what one member has applied, without asking the leader; may be old."""
    keys_only: bool
    """Leave the values out."""
    count_only: bool
    """Leave the pairs out; `RangeResult.count` is the answer."""
    min_mod_revision: int
    """Leave out pairs whose last write is older. The bounds are inclusive; 0 means none."""
    max_mod_revision: int
    """Leave out pairs whose last write is newer."""
    min_create_revision: int
    """Leave out pairs that were created before."""
    max_create_revision: int
    """Leave out pairs that were created later."""


class RangeOptions(FilterOptions, total=False):
    """What a range may say beyond key and end."""

    prefix: bool
    """Every key that starts with `key`; an empty key means all."""
    from_key: bool
    """Every key that is not smaller than `key`; an empty key means all."""


class DeleteOptions(TypedDict, total=False):
    """What a delete may say beyond key and end."""

    prefix: bool
    """Every key that starts with `key`; an empty key means all."""
    from_key: bool
    """Every key that is not smaller than `key`; an empty key means all."""
    prev_kv: bool
    """Answer with the deleted pairs."""


def put_request(key: Data, value: Data, options: PutOptions) -> rpc_pb2.PutRequest:
    return rpc_pb2.PutRequest(key=to_bytes(key), value=to_bytes(value), **options)


def range_request(key: Data, range_end: Data | None, options: RangeOptions) -> rpc_pb2.RangeRequest:
    start, end = key_interval(
        key, range_end, prefix=options.get("prefix", False), from_key=options.get("from_key", False)
    )
    return rpc_pb2.RangeRequest(
        key=start,
        range_end=end,
        revision=options.get("revision", 0),
        limit=options.get("limit", 0),
        sort_target=_sort_target(options.get("sort", "key")),
        sort_order=_sort_order(options),
        serializable=options.get("serializable", False),
        keys_only=options.get("keys_only", False),
        count_only=options.get("count_only", False),
        min_mod_revision=options.get("min_mod_revision", 0),
        max_mod_revision=options.get("max_mod_revision", 0),
        min_create_revision=options.get("min_create_revision", 0),
        max_create_revision=options.get("max_create_revision", 0),
    )


def _sort_target(name: str) -> rpc_pb2.RangeRequest.SortTarget:
    target = _SORT_TARGETS.get(name)
    if target is None:
        raise ValueError(f"sort is one of {', '.join(_SORT_TARGETS)}, not {name!r}")
    return target


def _sort_order(options: RangeOptions) -> rpc_pb2.RangeRequest.SortOrder:
    if options.get("descending", False):
        return rpc_pb2.RangeRequest.SortOrder.DESCEND
    if options.get("sort", "key") != "key":
        return rpc_pb2.RangeRequest.SortOrder.ASCEND
    # Key order is what a range gives by itself; asking for it would cost the server a sort.
    return rpc_pb2.RangeRequest.SortOrder.NONE


def delete_request(key: Data, range_end: Data | None, options: DeleteOptions) -> rpc_pb2.DeleteRangeRequest:
    start, end = key_interval(
        key, range_end, prefix=options.get("prefix", False), from_key=options.get("from_key", False)
    )
    return rpc_pb2.DeleteRangeRequest(key=start, range_end=end, prev_kv=options.get("prev_kv", False))


class Operation:
    """One step of a transaction: a `Put`, `Range`, `Delete` or `Nested`."""

    def __init__(self, message: rpc_pb2.RequestOp) -> None:
        self.message = message


class Put(Operation):
    """Writes a key; its result is a `PutResult`."""

    def __init__(self, key: Data, value: Data, **options: Unpack[PutOptions]) -> None:
        super().__init__(rpc_pb2.RequestOp(request_put=put_request(key, value, options)))


class Range(Operation):
    """Reads one key or several, earlier writes of the same transaction included; its result is a
    `RangeResult`."""

    def __init__(self, key: Data, range_end: Data | None = None, **options: Unpack[RangeOptions]) -> None:
        super().__init__(rpc_pb2.RequestOp(request_range=range_request(key, range_end, options)))


class Delete(Operation):
    """Deletes one key or several; its result is a `DeleteResult`."""

    def __init__(self, key: Data, range_end: Data | None = None, **options: Unpack[DeleteOptions]) -> None:
        super().__init__(rpc_pb2.RequestOp(request_delete_range=delete_request(key, range_end, options)))


class TxnParts:
    """Conditions, what to do if all of them hold, and what to do if not: one atomic step.

    The three methods may be called in any order and add up over repeated calls.
    """

    def __init__(self) -> None:
        self._compare: tuple[Condition, ...] = ()
        self._then: tuple[Operation, ...] = ()
        self._otherwise: tuple[Operation, ...] = ()

    def compare(self, *conditions: Condition) -> Self:
        self._compare += conditions
        return self

    def then(self, *operations: Operation) -> Self:
        self._then += operations
        return self

    def otherwise(self, *operations: Operation) -> Self:
        self._otherwise += operations
        return self

    def request(self) -> rpc_pb2.TxnRequest:
        return rpc_pb2.TxnRequest(
            compare=[condition.message for condition in self._compare],
            success=[operation.message for operation in self._then],
            failure=[operation.message for operation in self._otherwise],
        )


class Nested(Operation):
    """A transaction inside a transaction; its result is a `TxnResult`. Its conditions, too, are
    judged against the state before the outer transaction."""

    def __init__(self, parts: TxnParts) -> None:
        super().__init__(rpc_pb2.RequestOp(request_txn=parts.request()))
