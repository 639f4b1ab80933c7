"""DuckDB, behind one door: the only module that imports it.

What the rest of storage relies on, and what it would have to know otherwise:

- One `Engine` is one connection; threads do not share one. `cursor()` opens another connection to
  the same instance for another thread.
- Memory and threads are bounded, because several members share a machine; DuckDB's defaults are 80 %
  of the memory and all cores for each instance.
- Checkpoints happen when `checkpoint` is called, never inside a commit: DuckDB's own threshold would
  stall a commit for 85 ms, and large transactions would skip the WAL and block all others.
- A failed statement aborts its transaction, and a COMMIT of an aborted transaction *succeeds* while
  rolling back. So `transaction` rolls back explicitly on any exception, and durability is only ever
  inferred from a commit whose every statement returned.
- After an I/O error nothing is known about the files: it becomes `StorageFatalError`, and the process
  has to end. A full disk is told apart (`StorageFullError`), because it can be waited out.
- DuckDB never syncs a directory. Whoever creates, renames or removes a file here calls
  `sync_directory` afterwards.
- DuckDB's lock on a file is lost when the process opens and closes that file by other means. So
  nobody opens a live database file; the fence is the data directory's own lock file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from etcray_storage.errors import StorageCorruptError, StorageFatalError, StorageFullError

Row = tuple[Any, ...]

MEMORY_LIMIT_MIB: Final = 256

_SETTINGS: Final = (
    "SET wal_autocheckpoint = '1TB'",
    "SET auto_checkpoint_skip_wal_threshold = 1000000000000",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
)


class Engine:
    """One connection to one DuckDB instance. Not thread-safe: use `cursor()` for another thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path | None, memory_limit_mib: int = MEMORY_LIMIT_MIB) -> Engine:
        """Open or create the database at `path`; None gives one in memory, to attach others to.

        Raises StorageCorruptError where DuckDB refuses the file.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": f"{memory_limit_mib}MiB",
            "preserve_insertion_order": True,
        }
        with _translated(f"open {path}"):
            try:
                connection = duckdb.connect(":memory:" if path is None else str(path), config=config)
            except (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException) as e:
                if path is not None and not _is_full(e) and path.exists():
                    raise StorageCorruptError(f"{path} cannot be opened: {e}") from e
                raise
            for setting in _SETTINGS:
                connection.execute(setting)
        return cls(connection)

    def cursor(self) -> Engine:
        """Another connection to the same instance."""
        return Engine(self._connection.cursor())

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement whose result nobody wants. Outside of `transaction` it commits, durably,
        before it returns."""
        with _translated(sql):
            self._connection.execute(sql, parameters)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and fetch everything (an open result would own the connection)."""
        with _translated(sql):
            return self._connection.execute(sql, parameters).fetchall()

    def query_batches(self, sql: str, rows_per_batch: int = 10_000) -> Iterator[list[Row]]:
        """Run a statement and fetch it piece by piece; the connection is busy until the end."""
        with _translated(sql):
            result = self._connection.execute(sql)
            while rows := result.fetchmany(rows_per_batch):
                yield rows

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append Arrow rows to a table with the same columns in the same order."""
        with _translated(f"insert into {table}"):
            self._connection.register("arrow_rows", rows)
            try:
                self._connection.execute(f"INSERT INTO {table} SELECT * FROM arrow_rows")
            finally:
                self._connection.unregister("arrow_rows")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end of the block, roll back on any exception out of it."""
        self.execute("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            try:
                self._connection.execute("ROLLBACK")
            except duckdb.Error:
                pass  # the instance is already invalid; the exception in flight says why
            raise
        self.execute("COMMIT")

    def interrupt(self) -> None:
        """Stop the statement that another thread runs on this connection."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in this directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, OSError) as e:
        if _is_full(e):
            raise StorageFullError(f"no space left ({what.split(chr(10))[0][:120]}): {e}") from e
        raise StorageFatalError(f"{what.split(chr(10))[0][:120]}: {e}") from e
