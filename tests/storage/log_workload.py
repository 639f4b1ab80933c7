"""Records that the tests of the log write, and what is left of a log that was copied or damaged."""

from __future__ import annotations

from pathlib import Path

from etcray_storage.log import Log, Record
from etcray_storage.types import Entry, EntryKind, HardState, Index, MemberId, Term

ALL = 1 << 40
"""More bytes than any read of a test."""


def entry(index: int, term: int = 1, data: bytes = b"data") -> Entry:
    return Entry(Index(index), Term(term), EntryKind.COMMANDS, data)


def record(first: int, count: int = 1, term: int = 1, data: bytes = b"data", commit: int = 0) -> Record:
    """`count` entries from `first` on, and a hard state of their term."""
    entries = tuple(entry(index, term, data) for index in range(first, first + count))
    return Record(HardState(Term(term), MemberId(7), Index(commit)), entries)


def fill(log: Log, count: int, data: bytes = b"data") -> None:
    """One entry a row, after those that are there."""
    for _ in range(count):
        log.append(record(log.last_index + 1, data=data))


def all_entries(log: Log) -> list[Entry]:
    if log.last_index == log.base_index:
        return []
    return log.entries(log.first_index, log.last_index, ALL)


def small(directory: Path) -> Log:
    """A log whose segments are closed after four rows, and which keeps nothing in memory."""
    return Log.open(directory, segment_rows=4, cache_bytes=0)


def segment_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("log-*.duckdb"))
