"""The tail: the newest rows, in a DuckDB file with the position, and in memory for queries.

A batch's rows and the position that they reach are one transaction. The file is only ever appended to;
sealing begins a new one under a new name, and the old one is removed once the manifest has left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as compute

from etcray_storage.engine import Engine, sync_directory
from etcray_storage.errors import StorageCorruptError
from etcray_storage.history.parts import COLUMNS, ROWS_DDL
from etcray_storage.history.rows import Compaction

NAME: Final = "tail"
READ_ROWS: Final = 10_000


class Tail:
    """One tail file, attached to an engine. Not thread-safe."""

    def __init__(
        self,
        engine: Engine,
        path: Path,
        position: int,
        tables: list[pa.Table],
        compactions: list[Compaction],
    ) -> None:
        self._engine = engine
        self.path: Final = path
        self.position = position
        """Never goes back. Always what the newest row of `positions` says."""
        self.tables = tables
        """All rows of the file, in the order of their revisions."""
        self.rows: int = sum(table.num_rows for table in tables)
        self.bytes: int = sum(table.nbytes for table in tables)
        self.compactions = compactions

    @classmethod
    def create(cls, engine: Engine, path: Path, position: int) -> Tail:
        """Make a new file. Durable when this returns."""
        _remove(path)
        engine.attach(path, NAME)
        engine.execute(f"CREATE TABLE {NAME}.rows ({ROWS_DDL})")
        engine.execute(f"CREATE TABLE {NAME}.positions (position BIGINT)")
        engine.execute(f"CREATE TABLE {NAME}.compactions (revision BIGINT, time_ms BIGINT)")
        engine.checkpoint(NAME)
        engine.execute(f"INSERT INTO {NAME}.positions VALUES (?)", [position])
        sync_directory(path.parent)
        return cls(engine, path, position, [], [])

    @classmethod
    def open(cls, engine: Engine, path: Path, sealed_through: int) -> Tail:
        """Read an existing file. Raises StorageCorruptError if it does not continue the parts."""
        if not path.exists():
            raise StorageCorruptError(f"{path.name} is missing")
        engine.attach(path, NAME)
        try:
            found = engine.query(f"SELECT max(position) FROM {NAME}.positions")[0][0]
            rows = engine.stream(
                f"SELECT {COLUMNS} FROM {NAME}.rows ORDER BY main, sub", READ_ROWS
            ).read_all()
            noted = engine.query(f"SELECT revision, time_ms FROM {NAME}.compactions")
        except pa.ArrowException as e:
            raise StorageCorruptError(f"{path.name} cannot be read: {e}") from e
        position = int(found or 0)
        mains = rows["main"]
        first, last = (mains[0].as_py(), mains[-1].as_py()) if rows.num_rows else (position, position)
        if position < sealed_through or (rows.num_rows and not sealed_through < first <= last <= position):
            raise StorageCorruptError(
                f"{path.name} holds {first} to {last} for position {position}, "
                f"the parts end at {sealed_through}"
            )
        tables = [rows] if rows.num_rows else []
        return cls(engine, path, position, tables, [Compaction(*row) for row in noted])

    def append(self, rows: pa.Table, position: int, compactions: Sequence[Compaction]) -> None:
        """Durable when this returns. After an exception the tail is as before, in file and memory."""
        with self._engine.transaction():
            if rows.num_rows:
                self._engine.insert(f"{NAME}.rows", rows)
            if position > self.position:
                self._engine.execute(f"INSERT INTO {NAME}.positions VALUES (?)", [position])
            for noted in compactions:
                self._engine.execute(f"INSERT INTO {NAME}.compactions VALUES (?, ?)", list(noted))
        self.position = position
        self.compactions += compactions
        if rows.num_rows:
            self.tables.append(rows)
            self.rows += rows.num_rows
            self.bytes += rows.nbytes

    def detach(self) -> None:
        """Close the file."""
        self._engine.detach(NAME)

    def remove(self) -> None:
        """Remove the file, detached before: the manifest has left it."""
        _remove(self.path)


def above(table: pa.Table, revision: int) -> pa.Table:
    """The rows of later revisions."""
    return table.filter(compute.greater(table["main"], revision))


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + ".wal")):
        with suppress(FileNotFoundError):
            name.unlink()
