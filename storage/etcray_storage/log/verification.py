"""The background check of the log: every row is read from the disk again, in small steps.

What a member acknowledged must still be there when it is needed, which may be much later: a follower
comes back, or this member restarts. So a pass walks along the chain of checksums from the first row of
the oldest segment to the newest row, as recovery does. Segments that are removed in between are passed
over; the chain is taken up again at the header of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, NoReturn, Protocol

import msgspec

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageCorruptError
from etcray_storage.limits import VERIFY_STEP_BYTES, VERIFY_STEP_ROWS
from etcray_storage.log.record import Checksum, Row, decode_header, row_checksum
from etcray_storage.log.segment import Segment

_BATCH_ROWS: Final = 64


class Verified(Protocol):
    """What the check needs of the log."""

    def reading_segments(self) -> AbstractContextManager[tuple[Engine, Sequence[Segment]] | None]:
        """All begun segments, ascending, and a connection to read them on; none of them is removed
        meanwhile. None if the log is closed."""
        ...

    def drop_cache(self) -> None:
        """Forget what was read from disk."""
        ...


class Verifier:
    """One endless sequence of passes. Not thread-safe; the next step may come whenever."""

    def __init__(self, log: Verified) -> None:
        self._log = log
        self._segment = 0
        """The one that is being checked, or 0 between two passes."""
        self._row = 0
        """Position of the next row in it."""
        self._checksum = Checksum(0)
        """Of the row before that."""
        self._goes_on = False
        """The segment before was checked to its end, so this one must continue its chain. It was only if both
        were there in one step:

        1. A step ends in the middle of segment 2, or at the end of what it holds so far.
        2. Segment 2 gets more rows, segment 3 begins, and a compaction removes 2.
        3. The next step begins with 3. Nobody has seen the row that it follows."""

    def step(self) -> bool:
        """Check some more rows; True at the end of a pass, and the next step begins the next.

        Raises StorageCorruptError: an acknowledged row is damaged or gone."""
        if not self._segment:
            self._log.drop_cache()
        with self._log.reading_segments() as found:
            if found is None:
                return False
            engine, segments = found
            left = VERIFY_STEP_ROWS, VERIFY_STEP_BYTES
            finished = 0
            for segment in segments:
                if segment.number < self._segment:
                    continue
                if segment.number > self._segment:
                    self._goes_on = 0 < finished == segment.number - 1
                    self._segment, self._row = segment.number, 0
                left = self._check_some(engine, segment, *left)
                if min(left) <= 0:
                    return False
                finished = segment.number
        self._segment = 0
        return True

    def _check_some(self, engine: Engine, segment: Segment, rows_max: int, bytes_max: int) -> tuple[int, int]:
        """How many rows and bytes are left to do; one of them is not above 0 unless the segment is
        checked to its end."""
        end = segment.rows  # before the read: appends go on meanwhile
        for row in self._read(engine, segment, end):
            self._check(segment, row)
            rows_max -= 1
            bytes_max -= len(row.payload)
            if rows_max <= 0 or bytes_max <= 0:
                return rows_max, bytes_max
        if self._row < end:
            _refuse(segment, f"{end} rows", f"{self._row}")
        return rows_max, bytes_max

    def _read(self, engine: Engine, segment: Segment, end: int) -> Iterator[Row]:
        while self._row < end:
            last = min(self._row + _BATCH_ROWS, end) - 1
            rows = segment.rows_between(engine, self._row, last)
            yield from rows
            if not rows:
                return

    def _check(self, segment: Segment, row: Row) -> None:
        previous = self._checksum
        if self._row == 0:
            try:
                previous = decode_header(row.payload).previous_checksum
            except msgspec.DecodeError as e:
                _refuse(segment, "a row that opens a segment", str(e))
            if self._goes_on and previous != self._checksum:
                _refuse(
                    segment, f"a segment after checksum {self._checksum:08x}", f"one after {previous:08x}"
                )
        expected = row_checksum(previous, row)
        if row.checksum != expected:
            _refuse(segment, f"checksum {expected:08x} of row {row.sequence}", f"{row.checksum:08x}")
        self._checksum = row.checksum
        self._row += 1


def _refuse(segment: Segment, expected: str, found: str) -> NoReturn:
    raise StorageCorruptError(
        f"{segment.path}: expected {expected}, found {found}: rebuild this member from its peers"
    )
