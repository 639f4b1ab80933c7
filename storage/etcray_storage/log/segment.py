"""One file of the log.

A segment is made under another name, with its table in it and checkpointed, and only then renamed
to `log-<number>.duckdb`. So a file of that name that DuckDB refuses is damaged, never just unfinished;
and a segment without rows is one that was prepared and not yet begun. Once begun, it is written by
INSERTs of one row, each its own commit; it has no key, no index, and is never updated: DuckDB's known
faults of WAL replay live there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from etcray_storage.engine import Engine, ParsedStatement, sync_directory
from etcray_storage.errors import StorageFullError
from etcray_storage.log.record import Row, decode_row, encode_row

_FILE_NAME: Final = re.compile(r"log-(\d{12})\.duckdb")
_SPARE: Final = "spare.duckdb"


class Segment:
    """An attached segment. It owns no connection: each thread passes its own."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self.path = segment_path(directory, number)
        self.name = f"log_{number}"
        self.rows = 0
        """Rows in it: the position that the next one will have."""
        self.bytes = 0
        """Sum of the payloads."""
        self.checkpointed = False
        """Nothing is in its WAL any more, and nothing will be."""
        self._insert: ParsedStatement | None = None

    @classmethod
    def create(cls, engine: Engine, directory: Path, number: int) -> Segment:
        """Make a segment without rows, durably, and attach it."""
        spare = directory / _SPARE
        remove_database(spare)  # of an attempt that found no space
        engine.attach(spare, "spare")
        try:
            engine.execute("CREATE TABLE spare.records (record BLOB)")
            engine.checkpoint("spare")
        finally:
            engine.detach("spare")
        segment = cls(directory, number)
        spare.rename(segment.path)
        sync_directory(directory)
        try:
            segment.attach(engine)
        except StorageFullError:
            remove_database(segment.path)  # the next attempt must not leave it behind, without rows
            raise
        return segment

    def attach(self, engine: Engine) -> None:
        """Raises StorageCorruptError where DuckDB refuses the file."""
        engine.attach(self.path, self.name)

    def insert(self, engine: Engine, row: Row) -> None:
        """Append a row; durable when it returns."""
        if self._insert is None:
            self._insert = engine.parse(f"INSERT INTO {self.name}.records VALUES (?)")
        engine.execute_parsed(self._insert, (encode_row(row),))
        self.rows += 1
        self.bytes += len(row.payload)

    def scan(self, engine: Engine) -> Iterator[Row]:
        """All rows in the order in which they were inserted."""
        for rows in engine.query_batches(f"SELECT record FROM {self.name}.records", rows_per_batch=32):
            for (stored,) in rows:
                yield decode_row(stored)

    def stored_rows(self, engine: Engine) -> int:
        """How many rows the table has, by DuckDB's own count."""
        return int(engine.query(f"SELECT count(*) FROM {self.name}.records")[0][0])

    def payloads(self, engine: Engine, first: int, last: int) -> dict[int, bytes]:
        """Payloads by position, of the rows from position `first` to `last`."""
        sql = f"SELECT rowid, record FROM {self.name}.records WHERE rowid BETWEEN ? AND ?"
        return {at: decode_row(stored).payload for at, stored in engine.query(sql, (first, last))}

    def rows_between(self, engine: Engine, first: int, last: int) -> list[Row]:
        """The rows from position `first` to `last`, those of them that are there, in order."""
        sql = f"SELECT record FROM {self.name}.records WHERE rowid BETWEEN ? AND ?"
        return [decode_row(stored) for (stored,) in engine.query(sql, (first, last))]

    def checkpoint(self, engine: Engine) -> None:
        """Move the WAL of a segment that is no longer written into its file."""
        engine.checkpoint(self.name)
        sync_directory(self.path.parent)
        self.checkpointed = True

    def has_wal(self) -> bool:
        return self.path.with_name(self.path.name + ".wal").exists()

    def drop(self, engine: Engine) -> None:
        """Detach and remove it. The caller syncs the directory."""
        engine.detach(self.name)
        remove_database(self.path)


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"log-{number:012d}.duckdb"


def segment_numbers(directory: Path) -> list[int]:
    """Numbers of all segment files, ascending."""
    matches = (_FILE_NAME.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def remove_spare(directory: Path) -> None:
    """Remove what an unfinished preparation of a segment left."""
    remove_database(directory / _SPARE)


def remove_database(path: Path) -> None:
    """Remove a database file that nobody has open, and its WAL and checkpoint siblings. The database
    goes first: a WAL without its database is refused, a database without its WAL would be believed."""
    path.unlink(missing_ok=True)
    for sibling in sorted(path.parent.glob(f"{path.name}.*")):
        sibling.unlink()
