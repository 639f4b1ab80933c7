"""The database file in use and the connections to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etcray_storage.engine import Engine
from etcray_storage.mvcc.generations import generation_path, wal_path


class TableFile:
    """One generation, open. `writer` belongs to whoever holds the tables' write lock, `reader` to whoever
    holds their read lock; every other job takes a cursor of its own."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self.path = generation_path(directory, number)
        self._root = Engine.open(self.path)
        self.writer = self._root.cursor()
        self.reader = self._root.cursor()
        self.readers = 0
        """Reads under way on connections of their own; changed under the tables' read lock."""
        self.is_retired = False
        """Nobody begins a read any more: the last reader closes the file."""

    def new_cursor(self) -> Engine:
        """Another connection, for whoever closes it."""
        return self._root.cursor()

    @contextmanager
    def cursor(self) -> Iterator[Engine]:
        engine = self.new_cursor()
        try:
            yield engine
        finally:
            engine.close()

    def size_bytes(self) -> int:
        return _bytes_of(self.path) + self.wal_bytes()

    def wal_bytes(self) -> int:
        return _bytes_of(wal_path(self.path))

    def retire(self, checkpoint: bool) -> None:
        """Close it, now or when its last reader is done."""
        if self.readers:
            self.is_retired = True
        else:
            self.close(checkpoint)

    def close(self, checkpoint: bool = True) -> None:
        if not checkpoint:
            self._root.execute("PRAGMA disable_checkpoint_on_shutdown")
        for engine in (self.reader, self.writer, self._root):
            engine.close()


def _bytes_of(path: Path) -> int:
    """0 for a file that is not there: a checkpoint removes the WAL, a rewrite or an installed snapshot
    the whole generation, at any moment between asking for a path and looking at it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
