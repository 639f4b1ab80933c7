"""Opening a log: read every row of every segment, and believe none of them unchecked.

DuckDB checks blocks and WAL entries against accidents that it can see. What it cannot see is checked
here: a tail that it dropped (the tip says how far the log went), a file that is missing (segments
are numbered without a gap; the tip says which is the first), and a row of another log or time (the
chain of checksums). Nothing is repaired, and nothing is changed in a log that fails a check, so that
it fails the same check again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import msgspec

from etcray_storage.engine import Engine, sync_directory
from etcray_storage.errors import DataDirectoryError, StorageCorruptError
from etcray_storage.log.positions import Positions
from etcray_storage.log.record import (
    FORMAT,
    Checksum,
    Row,
    SegmentHeader,
    Sequence,
    decode_entries,
    decode_header,
    row_checksum,
)
from etcray_storage.log.segment import Segment, remove_database, segment_numbers, segment_path
from etcray_storage.log.tip import Tip
from etcray_storage.types import HardState, Index, Term

_REMEDY = (
    "This member must not vote with it: remove the member from the cluster, and add it again with "
    "an empty data directory."
)


class _RefusedError(StorageCorruptError):
    """A check failed here: the message is complete."""


class Recovered:
    """What a log's files hold."""

    def __init__(self, cache_bytes: int) -> None:
        self.positions = Positions(cache_bytes)
        self.segments: list[Segment] = []
        """Attached, ascending; the last one is the one to write to. Empty for a new log."""
        self.spare: Segment | None = None
        """Attached, without rows."""
        self.hard_state = HardState()
        self.sequence = Sequence(0)
        self.checksum = Checksum(0)
        self.reset_sequence = Sequence(0)
        """The row that last voided everything before it."""


def sync_files(directory: Path) -> None:
    """Make durable what a process wrote and did not live to sync. It may be read back from the page
    cache and acknowledged now, so it must survive a power loss from now on. Only while nothing in the
    directory is open: closing a database file here would give up DuckDB's lock on it."""
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(directory)


def recover(engine: Engine, directory: Path, tip: Tip, cache_bytes: int) -> Recovered:
    """Attach and read all segments that the tip does not call void.

    Raises StorageCorruptError if anything that was acknowledged may be missing or changed."""
    recovered = Recovered(cache_bytes)
    numbers = [number for number in segment_numbers(directory) if number >= tip.first_segment]
    _check_files(directory, tip, numbers)
    for number in numbers:
        segment = Segment(directory, number)
        try:
            segment.attach(engine)
        except StorageCorruptError as e:
            raise StorageCorruptError(f"{e}. {_REMEDY}") from e
        try:
            _Replay(recovered, segment, tip, is_first=number == tip.first_segment).run(engine)
        except (AssertionError, DataDirectoryError, _RefusedError):
            raise
        except Exception as e:  # whatever reading a damaged file leads to
            raise StorageCorruptError(f"{segment.path} cannot be read: {e}. {_REMEDY}") from e
        if segment.rows:
            if recovered.spare is not None:
                _refuse(recovered.spare.path, "rows, because a later segment has some", "none")
            recovered.segments.append(segment)
        else:
            recovered.spare = segment
        segment.checkpointed = not segment.has_wal()
    _check_end(recovered, directory, tip)
    return recovered


def remove_void_files(directory: Path, first_segment: int) -> None:
    """Finish the removal of segments that the tip called void before a crash."""
    for path in directory.glob("log-*.duckdb*"):
        if path.name < segment_path(directory, first_segment).name:
            remove_database(path)
    sync_directory(directory)


def _check_files(directory: Path, tip: Tip, numbers: list[int]) -> None:
    if not numbers:
        if tip.sequence:
            _refuse(segment_path(directory, tip.first_segment), f"{tip.sequence} rows in all", "no file")
        return
    for expected, number in enumerate(numbers, start=tip.first_segment):
        if number != expected:
            _refuse(segment_path(directory, expected), f"a file, because segment {number} exists", "no file")


def _check_end(recovered: Recovered, directory: Path, tip: Tip) -> None:
    positions = recovered.positions
    if recovered.sequence < tip.sequence:
        found = recovered.segments[-1] if recovered.segments else recovered.spare
        _refuse(
            found.path if found else directory,
            f"rows up to {tip.sequence} (entry {tip.last_index} of term {tip.last_term})",
            f"rows up to {recovered.sequence} (entry {positions.last_index} of term {positions.last_term})",
        )
    if not recovered.segments:
        return
    if tip.base_index >= positions.base_index:
        # Finer than what the oldest segment says, or the same.
        if tip.base_index > positions.last_index:
            _refuse(
                directory, f"entries from the base {tip.base_index} on", f"the last is {positions.last_index}"
            )
        if tip.base_index > positions.base_index and positions.term(tip.base_index) != tip.base_term:
            found_term = positions.term(tip.base_index)
            _refuse(directory, f"term {tip.base_term} at entry {tip.base_index}", f"term {found_term}")
        positions.compact(tip.base_index, tip.base_term)
    elif recovered.reset_sequence < max(tip.sequence, 1):
        _refuse(
            segment_path(directory, tip.first_segment),
            f"entries from {tip.base_index + 1} on",
            f"entries from {positions.base_index + 1} on",
        )


class _Replay:
    """Reads one segment into what was recovered before it."""

    def __init__(self, recovered: Recovered, segment: Segment, tip: Tip, is_first: bool) -> None:
        self._recovered = recovered
        self._segment = segment
        self._tip = tip
        self._is_first = is_first

    def run(self, engine: Engine) -> None:
        for row in self._segment.scan(engine):
            if self._segment.rows == 0:
                self._begin(row)
            else:
                self._check_chain(row)
                self._read_entries(row)
            self._recovered.sequence = row.sequence
            self._recovered.checksum = row.checksum
            self._recovered.hard_state = row.hard_state
            self._segment.rows += 1
            self._segment.bytes += len(row.payload)
        if self._is_first and self._tip.sequence and not self._segment.rows:
            _refuse(self._segment.path, "at least the row that opens a segment", "no rows")

    def _begin(self, row: Row) -> None:
        try:
            header = decode_header(row.payload)
        except msgspec.DecodeError as e:
            _refuse(self._segment.path, "a row that opens a segment", str(e))
        if header.format != FORMAT:
            raise DataDirectoryError(
                f"{self._segment.path} has format {header.format}, this version reads {FORMAT}: "
                "start it with a newer version"
            )
        recovered, positions = self._recovered, self._recovered.positions
        if header.segment != self._segment.number:
            _refuse(self._segment.path, f"segment {self._segment.number}", f"segment {header.segment}")
        if self._is_first:
            recovered.sequence = Sequence(row.sequence - 1)
            recovered.checksum = header.previous_checksum
            if self._tip.sequence and row.sequence > self._tip.sequence:
                _refuse(self._segment.path, f"a first row of at most {self._tip.sequence}", f"{row.sequence}")
        self._check_chain(row)
        if header.resets or self._is_first:
            positions.reset(header.base_index, header.base_term)
        if header.resets:
            recovered.reset_sequence = row.sequence
        self._check_base(header)

    def _check_base(self, header: SegmentHeader) -> None:
        positions = self._recovered.positions
        found = (header.base_index, header.base_term)
        if found != (positions.last_index, positions.last_term):
            _refuse(
                self._segment.path,
                f"a segment after entry {positions.last_index} of term {positions.last_term}",
                f"one after entry {found[0]} of term {found[1]}",
            )

    def _check_chain(self, row: Row) -> None:
        expected = self._recovered.sequence + 1
        if row.sequence != expected:
            _refuse(self._segment.path, f"row {expected}", f"row {row.sequence}")
        checksum = row_checksum(self._recovered.checksum, row)
        if row.checksum != checksum:
            _refuse(
                self._segment.path,
                f"checksum {checksum:08x} of row {row.sequence} and those before it",
                f"{row.checksum:08x}",
            )
        if row.sequence == self._tip.sequence and row.checksum != self._tip.checksum:
            _refuse(
                self._segment.path,
                f"row {row.sequence} with checksum {self._tip.checksum:08x}, as the tip says",
                f"{row.checksum:08x}",
            )

    def _read_entries(self, row: Row) -> None:
        if row.last_index < row.first_index:
            return
        positions = self._recovered.positions
        entries = decode_entries(row.payload)
        ends = (entries[0].index, entries[-1].index) if entries else (0, 0)
        if ends != (row.first_index, row.last_index):
            _refuse(
                self._segment.path, f"entries {row.first_index}..{row.last_index}", f"{ends[0]}..{ends[1]}"
            )
        if row.first_index <= positions.base_index:
            # A suffix that begins in a segment that is gone was replaced: the log goes on before
            # where this segment began. Only the tip still knows the term of the entry before.
            positions.reset(Index(row.first_index - 1), Term(0))
        positions.append(entries, self._segment.number, self._segment.rows, len(row.payload))


def _refuse(path: Path, expected: str, found: str) -> NoReturn:
    raise _RefusedError(f"{path}: expected {expected}, found {found}. {_REMEDY}")
