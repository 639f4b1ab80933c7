"""The background check of the tables: everything on disk is read again, in small steps.

Bits rot in files that nobody reads. A member that finds it out at its next start, or not before it has to
send a snapshot, is a member less just when one is needed. So a pass reads every row, from the disk and
not from DuckDB's memory (DuckDB compares each block's checksum when it reads the block), and looks
whether the rows make sense: their order, their numbers, and that the newest revision of a key is the very
pair that memory answers clients with.

A pass is made of steps, each a short read by `main`, so that a rewrite, a checkpoint or a flush never
waits for it; rows that a rewrite drops in between are not missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageCorruptError
from etcray_storage.limits import VERIFY_STEP_BYTES, VERIFY_STEP_ROWS
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.mvcc.schema import NEWEST_ITEMS, VERIFY, read_meta

_BATCH_ROWS: Final = 64

FindDifference = Callable[[Sequence[RevisionRow]], RevisionRow | None]
"""Compares rows with memory: `StateMachine.find_difference`, under the lock that it needs."""


class Verified(Protocol):
    """What the check needs of the tables."""

    @property
    def name(self) -> str:
        """For messages: the file in use."""
        ...

    def reading(self) -> AbstractContextManager[Engine | None]:
        """A connection to read on; None if the tables are closed."""
        ...

    def drop_cache(self) -> bool:
        """Forget what was read from disk; False if that cannot be done now."""
        ...


class Verifier:
    """One endless sequence of passes. Not thread-safe; the next step may come whenever."""

    def __init__(self, tables: Verified, find_difference: FindDifference) -> None:
        self._tables = tables
        self._find_difference = find_difference
        self._begun = False
        self._last = (0, -1)
        """Main and sub of the last row that was checked in this pass."""

    def step(self) -> bool:
        """Check some more rows; True at the end of a pass, and the next step begins the next.

        Raises StorageCorruptError: this member's disk has lost or changed something."""
        if not self._begun:
            if not self._tables.drop_cache():
                return False
            self._begun, self._last = True, (0, -1)
        with self._tables.reading() as engine:
            if engine is None or self._check_rows(engine):
                return False
            for _ in engine.query_batches(NEWEST_ITEMS, rows_per_batch=_BATCH_ROWS):
                pass  # a block that cannot be read raises
            read_meta(engine)
        self._begun = False
        return True

    def _check_rows(self, engine: Engine) -> int:
        """How many rows there were to check."""
        rows = 0
        size = 0
        for batch in engine.query_batches(VERIFY, [self._last[0]], _BATCH_ROWS):
            fresh = list(map(RevisionRow._make, batch))
            if not rows:  # the step begins with rows of the revision at which the last one ended
                fresh = [row for row in fresh if row[:2] > self._last]
            for row in fresh:
                self._check(row)
                size += len(row.value)
            different = self._find_difference(fresh)
            if different is not None:
                self._refuse(different, "is not what memory holds")
            rows += len(fresh)
            if rows >= VERIFY_STEP_ROWS or size >= VERIFY_STEP_BYTES:
                break
        return rows

    def _check(self, row: RevisionRow) -> None:
        place = (row.main, row.sub)
        if place <= self._last:
            self._refuse(row, f"stands behind {self._last[0]}.{self._last[1]}")
        self._last = place
        if row.tombstone:
            right = not (row.value or row.create_revision or row.version or row.lease)
        else:
            right = 0 < row.create_revision <= row.main and row.version > 0
        if not right:
            self._refuse(row, f"cannot be: {row[4:8]}")

    def _refuse(self, row: RevisionRow, what: str) -> None:
        raise StorageCorruptError(
            f"{self._tables.name}: revision {row.main}.{row.sub} {what}: rebuild this member from its peers"
        )
