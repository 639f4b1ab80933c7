"""Answering a RangeRequest, quirks included.

The order of steps is etcd's, and clients can observe it: take the keys of the range (only limit + 1
of them where the limit can be pushed down), filter by revisions, sort, cut at the limit. So `count` is
the number of keys before filters and limit, and `more` compares what is left after filters.

Two quirks follow. The limit is pushed down whenever no sort *order* is given, even with a sort
*target*: then the first keys are taken and sorted among themselves. And since 3.7 `keys_only` also
drops the lease, except when sorting by value, which makes etcd read the whole pair.

etcd's sort leaves ties in any order; here ties stay in key order, because all members must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from etcray_storage import wire
from etcray_storage.mvcc.key_index import KeyRecord
from etcray_storage.mvcc.store import Store
from etcray_storage.proto.rpc_pb2 import RangeRequest

_INT64_MAX: Final = (1 << 63) - 1

_SORT_KEYS: Final[dict[int, Callable[[KeyRecord], Any]]] = {
    RangeRequest.KEY: attrgetter("key"),
    RangeRequest.VERSION: attrgetter("version"),
    RangeRequest.CREATE: attrgetter("create_revision"),
    RangeRequest.MOD: attrgetter("mod_revision"),
    RangeRequest.VALUE: KeyRecord.value,
}


def execute_range(store: Store, request: RangeRequest) -> bytes:
    """The body of the RangeResponse. The request has passed `validate.check_range`.

    Raises FUTURE_REV or COMPACTED.
    """
    revision = store.resolve_revision(request.revision)
    filtered = bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )
    ordered = request.sort_order != RangeRequest.NONE and not (
        request.sort_order == RangeRequest.ASCEND and request.sort_target == RangeRequest.KEY
    )
    limit = request.limit if 0 < request.limit < _INT64_MAX else None
    fetch = limit + 1 if limit is not None and not filtered and not ordered else None
    records, count = _fetch(store, request, revision, fetch)
    if request.count_only:
        return wire.range_response([], False, count)
    if filtered:
        records = _filter(records, request)
    if request.sort_target != RangeRequest.KEY or request.sort_order == RangeRequest.DESCEND:
        records.sort(key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == RangeRequest.DESCEND)
    more = limit is not None and len(records) > limit
    if more:
        del records[limit:]
    if request.keys_only:
        keep_lease = request.sort_target == RangeRequest.VALUE
        return wire.range_response([_key_only(r, keep_lease) for r in records], more, count)
    return wire.range_response([record.key_value for record in records], more, count)


def _fetch(
    store: Store, request: RangeRequest, revision: int, fetch: int | None
) -> tuple[list[KeyRecord], int]:
    """The range's records at `revision`, at most `fetch` of them, and how many there are in all."""
    key, range_end = request.key, request.range_end
    if revision != store.visible_revision:
        found = store.index.mains_at(key, range_end, revision)
        return ([] if request.count_only else store.values_at(found[:fetch])), len(found)
    if not range_end:
        record = store.index.get(key)
        return ([], 0) if record is None else ([record], 1)
    if request.count_only:
        return [], store.index.count(key, range_end)
    records = store.index.records(key, range_end, fetch)
    if fetch is None or len(records) < fetch:
        return records, len(records)
    return records, store.index.count(key, range_end)


def _filter(records: list[KeyRecord], request: RangeRequest) -> list[KeyRecord]:
    """Inclusive bounds; 0 means no bound."""
    if bound := request.max_mod_revision:
        records = [r for r in records if r.mod_revision <= bound]
    if bound := request.min_mod_revision:
        records = [r for r in records if r.mod_revision >= bound]
    if bound := request.max_create_revision:
        records = [r for r in records if r.create_revision <= bound]
    if bound := request.min_create_revision:
        records = [r for r in records if r.create_revision >= bound]
    return records


def _key_only(record: KeyRecord, keep_lease: bool) -> bytes:
    return wire.key_value(
        record.key,
        record.create_revision,
        record.mod_revision,
        record.version,
        b"",
        record.lease if keep_lease else 0,
    )
