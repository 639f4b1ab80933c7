"""The keys in memory: the newest pair of each, and which revisions it had before.

Old values are not here; the index only knows that they exist, as (key, main) points. A key's history
is an `array` of eight bytes a revision, and is not there at all for a key that was written once.

Rules for this file: a record is in `_records` as long as the key is alive or has history that a read
above the compact revision may need. `_live` and `_dead` are the sorted keys of the two kinds, so that
reads of the present never step over deleted keys, and counting them is two binary searches.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
from sortedcontainers import SortedList

from etcray_storage import wire
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.proto.kv_pb2 import KeyValue

UNBOUNDED: Final = b"\x00"
"""As a range end: every key from the range's start on. A real end can never be it, because only the
empty key sorts before it."""


class KeyRecord(msgspec.Struct, gc=False):
    """One key. Slotted, and unknown to the garbage collector: a million of them cost it nothing."""

    key: bytes
    key_value: bytes
    """The serialized `mvccpb.KeyValue`; empty exactly when the newest revision is a tombstone."""
    create_revision: int
    mod_revision: int
    """Main revision of the newest change, a tombstone included."""
    version: int
    lease: int
    history: array[int] | None = None
    """Superseded revisions, oldest first, each main << 1 | tombstone. All are below mod_revision."""

    def value(self) -> bytes:
        """The pair's value, decoded from the stored pair."""
        return KeyValue.FromString(self.key_value).value


def record_of(row: RevisionRow) -> KeyRecord:
    """An old revision, in the shape in which the present is kept."""
    pair = wire.key_value(row.key, row.create_revision, row.main, row.version, row.value, row.lease)
    return KeyRecord(row.key, pair, row.create_revision, row.main, row.version, row.lease)


class KeyIndex:
    """Every key, ordered. Not thread-safe; changed only by `Store`."""

    def __init__(self) -> None:
        self._records: dict[bytes, KeyRecord] = {}
        self._live: SortedList = SortedList()
        self._dead: SortedList = SortedList()
        self._attached: dict[int, set[bytes]] = {}
        """The living keys of each lease that has any: exactly those whose record names it."""
        self._superseded_mains: deque[int] = deque()
        self._superseded_records: deque[KeyRecord] = deque()
        """In step: at this main, this record got something that a compaction may drop. Ascending,
        so that a compaction takes from the left and costs only what it drops."""

    def get(self, key: bytes) -> KeyRecord | None:
        """The record of a key that exists now."""
        record = self._records.get(key)
        return record if record is not None and record.key_value else None

    def keys(self, key: bytes, range_end: bytes, limit: int | None = None) -> list[bytes]:
        """The keys of a range that exist now, in order; at most `limit` of them."""
        return list(islice(_between(self._live, key, range_end), limit))

    def records(self, key: bytes, range_end: bytes, limit: int | None = None) -> list[KeyRecord]:
        """The same as records. `range_end` is not empty: single keys are for `get`."""
        return [self._records[k] for k in islice(_between(self._live, key, range_end), limit)]

    def attached(self, lease: int) -> list[bytes]:
        """The keys of a lease, in order."""
        return sorted(self._attached.get(lease, ()))

    def attached_count(self, lease: int) -> int:
        """How many keys a lease has."""
        return len(self._attached.get(lease, ()))

    def leases(self) -> list[int]:
        """The leases that have keys, in order."""
        return sorted(self._attached)

    def count(self, key: bytes, range_end: bytes) -> int:
        """How many keys of a range exist now, without looking at them."""
        start, stop = _slice(self._live, key, range_end)
        return max(0, stop - start)

    def mains_at(self, key: bytes, range_end: bytes, revision: int) -> list[tuple[KeyRecord, int]]:
        """What a range held at an earlier revision: each key's record and the main revision that
        was its newest then. Ordered by key. An empty `range_end` means the single key."""
        if range_end:
            names: Iterable[bytes] = _between(self._live, key, range_end)
            dead = list(_between(self._dead, key, range_end))
            if dead:
                names = sorted([*names, *dead])
        else:
            names = (key,) if key in self._records else ()
        found = []
        for name in names:
            record = self._records[name]
            main = _main_at(record, revision)
            if main:
                found.append((record, main))
        return found

    def put(self, key: bytes, value: bytes, main: int, lease: int) -> tuple[KeyRecord, bytes]:
        """Make `value` the newest revision of a key. Returns its record, and the pair that it replaced;
        empty if there was none."""
        record = self._records.get(key)
        if record is None:
            pair = wire.key_value(key, main, main, 1, value, lease)
            record = self._records[key] = KeyRecord(key, pair, main, main, 1, lease)
            self._live.add(key)
            if lease:
                self._attach(key, lease)
            return record, b""
        assert record.mod_revision < main, f"{key!r} changes twice in revision {main}"
        self._supersede(record, main)
        previous = record.key_value
        if previous:
            record.version += 1
        else:
            self._dead.remove(key)
            self._live.add(key)
            record.create_revision = main
            record.version = 1
        record.mod_revision = main
        if record.lease != lease:
            if record.lease:
                self._detach(key, record.lease)
            if lease:
                self._attach(key, lease)
            record.lease = lease
        record.key_value = wire.key_value(key, record.create_revision, main, record.version, value, lease)
        return record, previous

    def delete(self, key: bytes, range_end: bytes, main: int) -> list[bytes]:
        """End the life of all keys in a range; an empty `range_end` means the single key. Returns
        the keys, in order."""
        if not range_end:
            if self.get(key) is None:
                return []
            keys = [key]
            self._live.remove(key)
            self._dead.add(key)
        else:
            keys = self.keys(key, range_end)
            if not keys:
                return []
            start, stop = _slice(self._live, key, range_end)
            del self._live[start:stop]
            self._dead.update(keys)
        for name in keys:
            record = self._records[name]
            assert record.mod_revision < main, f"{name!r} changes twice in revision {main}"
            self._supersede(record, main)
            if record.lease:
                self._detach(name, record.lease)
            record.key_value = b""
            record.create_revision = record.version = record.lease = 0
            record.mod_revision = main
        return keys

    def trim(self, compact_revision: int, steps_max: int | None = None) -> None:
        """Drop what no read at or above `compact_revision` can see, in at most `steps_max` steps.
        Reads do not notice whether it happened."""
        mains, records = self._superseded_mains, self._superseded_records
        while mains and mains[0] <= compact_revision:
            if steps_max is not None:
                if steps_max == 0:
                    return
                steps_max -= 1
            mains.popleft()
            self._trim_record(records.popleft(), compact_revision)

    def restore(self, history: Iterable[Sequence[tuple[bytes, int, bool]]]) -> None:
        """Fill an empty index with every revision of the tables, ordered by main. The pairs come
        afterwards, through `restore_pair`, and then `restore_done`."""
        assert not self._records, f"restore into an index of {len(self._records)} keys"
        records = self._records
        for batch in history:
            for key, main, tombstone in batch:
                record = records.get(key)
                if record is None:
                    records[key] = record = KeyRecord(key, b"" if tombstone else b"?", 0, main, 0, 0)
                    if tombstone:  # what it ended is compacted already
                        self._queue(record, main)
                else:
                    assert record.mod_revision < main, f"{key!r} changes twice in revision {main}"
                    self._supersede(record, main)
                    record.mod_revision = main
                    record.key_value = b"" if tombstone else b"?"

    def restore_pair(self, row: RevisionRow) -> None:
        """The newest revision of a key that exists."""
        record = self._records[row.key]
        assert record.mod_revision == row.main, (
            f"newest revision of {row.key!r} is {record.mod_revision}, not {row.main}"
        )
        assert record.key_value == b"?", f"{row.key!r} is restored twice, or deleted"
        record.key_value = wire.key_value(
            row.key, row.create_revision, row.main, row.version, row.value, row.lease
        )
        record.create_revision = row.create_revision
        record.version = row.version
        record.lease = row.lease
        if row.lease:
            self._attach(row.key, row.lease)

    def restore_done(self) -> None:
        """Order the keys. Every living key must have its pair by now."""
        self._live.update(key for key, record in self._records.items() if record.key_value)
        self._dead.update(key for key, record in self._records.items() if not record.key_value)
        missing = sum(record.key_value == b"?" for record in self._records.values())
        assert missing == 0, f"{missing} keys have no pair"

    def agrees(self, row: RevisionRow, compact_revision: int) -> bool:
        """Whether a row of the tables, which lag behind this index, is what the index knows."""
        record = self._records.get(row.key)
        if record is not None and record.mod_revision == row.main:
            if row.tombstone:
                return not record.key_value
            pair = wire.key_value(row.key, row.create_revision, row.main, row.version, row.value, row.lease)
            return pair == record.key_value
        if row.main <= compact_revision:
            return True  # it may be forgotten here and still be there
        if record is None or record.history is None:
            return False
        entry = row.main << 1 | row.tombstone
        position = bisect_left(record.history, entry)
        return position < len(record.history) and record.history[position] == entry

    def _attach(self, key: bytes, lease: int) -> None:
        self._attached.setdefault(lease, set()).add(key)

    def _detach(self, key: bytes, lease: int) -> None:
        keys = self._attached[lease]
        keys.remove(key)
        if not keys:
            del self._attached[lease]

    def _supersede(self, record: KeyRecord, main: int) -> None:
        entry = record.mod_revision << 1 | (not record.key_value)
        history = record.history
        if history is None:
            record.history = array("q", (entry,))
        else:
            history.append(entry)
        self._queue(record, main)

    def _queue(self, record: KeyRecord, main: int) -> None:
        self._superseded_mains.append(main)
        self._superseded_records.append(record)

    def _trim_record(self, record: KeyRecord, compact_revision: int) -> None:
        history = record.history
        if record.mod_revision <= compact_revision:
            record.history = None
            if not record.key_value and self._records.get(record.key) is record:
                del self._records[record.key]
                self._dead.remove(record.key)
            return
        if history is None:
            return
        position = bisect_right(history, compact_revision << 1 | 1) - 1
        if position < 0:
            return
        drop = position + (history[position] & 1)  # a tombstone says no more than its absence
        if drop == len(history):
            record.history = None
        elif drop:
            del history[:drop]


def _main_at(record: KeyRecord, revision: int) -> int:
    """The main revision of the key's pair at `revision`; 0 if it did not exist then."""
    if record.mod_revision <= revision:
        return record.mod_revision if record.key_value else 0
    history = record.history
    if history is None:
        return 0
    position = bisect_right(history, revision << 1 | 1) - 1
    if position < 0 or history[position] & 1:
        return 0
    return history[position] >> 1


def _slice(names: SortedList, key: bytes, range_end: bytes) -> tuple[int, int]:
    start = names.bisect_left(key)
    stop = len(names) if range_end == UNBOUNDED else names.bisect_left(range_end)
    return start, stop


def _between(names: SortedList, key: bytes, range_end: bytes) -> Iterator[bytes]:
    if range_end == UNBOUNDED:
        return iter(names.irange(key))
    if range_end <= key:
        return iter(())
    return iter(names.irange(key, range_end, (True, False)))
