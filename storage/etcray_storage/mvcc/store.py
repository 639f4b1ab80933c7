"""The store: the key index, the revision counter, and the rows on their way to the tables.

A change happens between `begin` and `end`. All changes in between share one main revision and are
numbered by sub revision; the counter moves at `end`, and only if something changed. Reads in between
see the changes (a transaction reads its own writes).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from etcray_storage import errors
from etcray_storage.errors import error_by_number
from etcray_storage.mvcc.key_index import KeyIndex, KeyRecord, record_of
from etcray_storage.mvcc.rows import Change, Point, RevisionRow, ValueReader

FIRST_REVISION: Final = 1
NEVER_COMPACTED: Final = -1
TRIM_STEPS_MAX: Final = 1_000
"""How many superseded revisions one log entry's apply forgets after a compaction."""

_main_of = attrgetter("main")


class Store:
    """All keys with all their revisions. Not thread-safe."""

    def __init__(self, reader: ValueReader) -> None:
        self.index = KeyIndex()
        self.revision = FIRST_REVISION
        """Of the last change that ended."""
        self.compact_revision = NEVER_COMPACTED
        self.reader = reader
        self._sub = 0
        """How many changes were made since `begin`."""
        self._time_ms = 0
        self._rows: list[RevisionRow] = []
        """Not handed to the tables yet, in order of (main, sub)."""
        self.changes: list[Change] = []
        """What watchers have to be told, in order. Emptied by the owner before each log entry, so it is
        bounded by what one entry can change."""

    # --- reading ------------------------------------------------------------------------------
    @property
    def visible_revision(self) -> int:
        """What a read sees now: one more than `revision` once the open change has done something."""
        return self.revision + 1 if self._sub else self.revision

    def resolve_revision(self, revision: int) -> int:
        """The revision that a read asked for; 0 and below mean the newest. Raises FUTURE_REV or
        COMPACTED; the compacted revision itself can be read."""
        newest = self.visible_revision
        if revision <= 0:
            return newest
        if revision > newest:
            raise error_by_number(errors.FUTURE_REV.number)
        if revision < self.compact_revision:
            raise error_by_number(errors.COMPACTED.number)
        return revision

    def values_at(self, found: Sequence[tuple[KeyRecord, int]]) -> list[KeyRecord]:
        """Load what `KeyIndex.mains_at` found: newest pairs from memory, pairs of rows that are not
        handed out yet from the list of rows, and all others with one call of the reader."""
        result: list[KeyRecord | None] = []
        points: list[Point] = []
        positions: list[int] = []
        first_pending = self._rows[0].main if self._rows else self.visible_revision + 1
        for record, main in found:
            if record.mod_revision == main:
                result.append(record)
            elif main >= first_pending:
                result.append(record_of(self._pending_row(record.key, main)))
            else:
                positions.append(len(result))
                points.append(Point(record.key, main))
                result.append(None)
        if points:
            rows = self.reader.rows(points)
            assert len(rows) == len(points), f"{len(rows)} rows for {len(points)} points"
            for position, point, row in zip(positions, points, rows, strict=True):
                assert (row.key, row.main) == point, f"row {row.key!r}@{row.main} for point {point}"
                result[position] = record_of(row)
        return [record for record in result if record is not None]

    def _pending_row(self, key: bytes, main: int) -> RevisionRow:
        for position in range(bisect_left(self._rows, main, key=_main_of), len(self._rows)):
            row = self._rows[position]
            if row.main == main and row.key == key:
                return row
        raise AssertionError(f"no row for {key!r} at revision {main}")

    def previous_point(self, point: Point) -> Point | None:
        """What the key held at the revision before this change of it; None if nothing, or if that
        revision is compacted."""
        if point.main - 1 < self.compact_revision:
            return None
        found = self.index.mains_at(point.key, b"", point.main - 1)
        return Point(point.key, found[0][1]) if found else None

    # --- changing -----------------------------------------------------------------------------
    def begin(self, time_ms: int) -> None:
        """Open a change."""
        assert self._sub == 0, f"revision {self.revision + 1} is still open"
        self._time_ms = time_ms

    def put(self, key: bytes, value: bytes, lease: int) -> None:
        """Write a pair. The caller has checked everything: from here on nothing can fail."""
        main = self.revision + 1
        record, previous = self.index.put(key, value, main, lease)
        self.changes.append(tuple.__new__(Change, (main, key, record.key_value, previous)))
        row = (
            main,
            self._sub,
            key,
            value,
            record.create_revision,
            record.version,
            lease,
            False,
            self._time_ms,
            "",
        )
        self._rows.append(tuple.__new__(RevisionRow, row))
        self._sub += 1

    def put_alone(self, key: bytes, value: bytes, time_ms: int) -> None:
        """A change that is one put without a lease: `begin`, `put` and `end`."""
        assert self._sub == 0, f"revision {self.revision + 1} is still open"
        self._time_ms = time_ms
        self.put(key, value, 0)
        self.revision += 1
        self._sub = 0

    def delete(self, key: bytes, range_end: bytes) -> int:
        """Delete a key (empty `range_end`) or a range; returns how many keys there were."""
        main = self.revision + 1
        known = self.index.records(key, range_end) if range_end else [self.index.get(key)]
        pairs = [record.key_value for record in known if record is not None]
        keys = self.index.delete(key, range_end, main)
        assert len(keys) == len(pairs), f"{len(keys)} keys deleted, {len(pairs)} were there"
        self.changes += [Change(main, name, b"", pair) for name, pair in zip(keys, pairs, strict=True)]
        for sub, name in enumerate(keys, self._sub):
            self._rows.append(RevisionRow(main, sub, name, b"", 0, 0, 0, True, self._time_ms, ""))
        self._sub += len(keys)
        return len(keys)

    def end(self) -> None:
        """Close the change; the revision moves if there was one."""
        if self._sub:
            self.revision += 1
            self._sub = 0

    def compact(self, revision: int) -> None:
        """Make everything below `revision` unreadable, at once; memory follows in `trim`."""
        if revision <= self.compact_revision:
            raise error_by_number(errors.COMPACTED.number)
        if revision > self.revision:
            raise error_by_number(errors.FUTURE_REV.number)
        self.compact_revision = revision

    def trim(self) -> None:
        """A bounded piece of what compaction left to do."""
        self.index.trim(self.compact_revision, TRIM_STEPS_MAX)

    # --- tables -------------------------------------------------------------------------------
    def take_rows(self) -> list[RevisionRow]:
        """Rows since the last call. From here on the reader finds them."""
        rows, self._rows = self._rows, []
        return rows

    def restore(
        self,
        revision: int,
        compact_revision: int,
        history: Iterable[Sequence[tuple[bytes, int, bool]]],
        current: Iterable[Sequence[RevisionRow]],
    ) -> None:
        """Fill a fresh store from the tables (see `StateMachine.restore`)."""
        assert self.revision == FIRST_REVISION, f"restore into a store at revision {self.revision}"
        self.revision = revision
        self.compact_revision = compact_revision
        self.index.restore(history)
        for batch in current:
            for row in batch:
                self.index.restore_pair(row)
        self.index.restore_done()
        self.index.trim(compact_revision)
