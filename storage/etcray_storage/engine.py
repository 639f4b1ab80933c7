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
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from etcray_storage.errors import StorageCorruptError, StorageFatalError, StorageFullError

Row = tuple[Any, ...]
ParsedStatement = duckdb.Statement


def configure_arrow() -> None:
    """Make Arrow small in this process, which lives long and has many threads.

    It takes memory from the system's allocator: its own keeps what a thread once had and another one gave
    back. A leader that a history followed through 1,000,000 puts had 545 MiB in it, none of them in use.

    It forgoes pandas, where that is installed and nobody imported it yet. Arrow looks for it once, when it
    makes its first array, to know a DataFrame if it is given one. That import costs 0.3 s of CPU and tens of
    MiB, in each member, and nobody gives a member a DataFrame. Others may import pandas as before."""
    pa.set_memory_pool(pa.system_memory_pool())
    if "pandas" not in sys.modules:
        absence = _PandasIsAbsent()
        sys.meta_path.insert(0, absence)
        try:
            pa.array([0])
        finally:
            sys.meta_path.remove(absence)


class _PandasIsAbsent(MetaPathFinder):
    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not in this process", name=fullname)


MEMORY_LIMIT_MIB: Final = 256

_COMMON_SETTINGS: Final = (
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
)

_SETTINGS: Final = (
    "SET wal_autocheckpoint = '1TB'",
    "SET auto_checkpoint_skip_wal_threshold = 1000000000000",
    *_COMMON_SETTINGS,
)

_UNSYNCED: Final = "SET fsync_mode = 'NONE'"
_SCRATCH_SETTINGS: Final = (_UNSYNCED, *_COMMON_SETTINGS)

# A write or sync that fails inside a commit comes as a TransactionException, "Failed to commit: ...".
_STORAGE_FAILURES: Final = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.TransactionException,
    duckdb.OutOfMemoryException,
)


class Engine:
    """One connection to one DuckDB instance. Not thread-safe: use `cursor()` for another thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    @classmethod
    def open(
        cls,
        path: Path | None,
        memory_limit_mib: int = MEMORY_LIMIT_MIB,
        scratch: bool = False,
        checkpoint_on_close: bool = True,
        is_synced: bool = True,
    ) -> Engine:
        """Open or create the database at `path`; None gives one in memory, to attach others to.

        `scratch` is for a file that is built in bulk and counts only once it is complete: nothing is
        synced (its builder calls `sync_file` after `close`), and large transactions skip the WAL.
        Without `checkpoint_on_close`, neither closing nor detaching ever rewrites a file: what is
        suspicious stays as it was found. If not `is_synced`, neither a commit nor a checkpoint waits for the
        disk: what it wrote survives the end of the process, but not a power loss.
        Raises StorageCorruptError where DuckDB refuses the file.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": f"{memory_limit_mib}MiB",
            "preserve_insertion_order": True,
        }
        with translated(f"open {path}"):
            try:
                connection = duckdb.connect(":memory:" if path is None else str(path), config=config)
            except duckdb.Error as e:
                # A damaged WAL comes as the bare base class, other damage as several of its children.
                is_damage = not _is_full(e) and not isinstance(e, duckdb.OutOfMemoryException)
                if path is not None and is_damage and path.exists():
                    raise StorageCorruptError(f"{path} cannot be opened: {e}") from e
                raise
            for setting in _SCRATCH_SETTINGS if scratch else _SETTINGS:
                connection.execute(setting)
            if not is_synced:
                connection.execute(_UNSYNCED)
            if path is None:
                connection.execute("SET temp_directory = ''")  # else it spills into the working directory
            if not checkpoint_on_close:
                connection.execute("SET checkpoint_on_detach = 'DISABLED'")
                connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        return cls(connection)

    def cursor(self) -> Engine:
        """Another connection to the same instance."""
        return Engine(self._connection.cursor())

    def attach(self, path: Path, name: str) -> None:
        """Open or create another database file in this instance, as `name`.

        Raises StorageCorruptError where DuckDB refuses the file or its WAL.
        """
        existed = path.exists()
        with translated(f"attach {path}"):
            try:
                self._connection.execute(f"ATTACH {_quoted(path)} AS {name}")
            except duckdb.Error as e:
                if existed and not _is_full(e) and not isinstance(e, duckdb.OutOfMemoryException):
                    raise StorageCorruptError(f"{path} cannot be opened: {e}") from e
                raise

    def detach(self, name: str) -> None:
        """Close an attached database. No other connection may be in a statement on it."""
        self.execute(f"DETACH {name}")

    def checkpoint(self, name: str) -> None:
        """Move an attached database's WAL into its file. Commits to other databases go on meanwhile."""
        self.execute(f"CHECKPOINT {name}")

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement whose result nobody wants. Outside of `transaction` it commits, durably,
        before it returns."""
        with translated(sql):
            self._connection.execute(sql, parameters)

    def parse(self, sql: str) -> ParsedStatement:
        """One statement, for `execute_parsed`."""
        with translated(sql):
            (statement,) = self._connection.extract_statements(sql)
        return statement

    def execute_parsed(self, statement: ParsedStatement, parameters: Sequence[object]) -> None:
        """As `execute`, for a statement that is run again and again: parsing takes 0.1 ms, a third of the
        CPU time of an INSERT of one row without its sync."""
        with translated(statement.query):
            self._connection.execute(statement, parameters)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and fetch everything (an open result would own the connection)."""
        with translated(sql):
            return self._connection.execute(sql, parameters).fetchall()

    def query_batches(
        self, sql: str, parameters: Sequence[object] = (), rows_per_batch: int = 10_000
    ) -> Iterator[list[Row]]:
        """Run a statement and fetch it piece by piece; the connection is busy until the end."""
        with translated(sql):
            result = self._connection.execute(sql, parameters)
            while rows := result.fetchmany(rows_per_batch):
                yield rows

    def stream(self, sql: str, rows_per_batch: int) -> pa.RecordBatchReader:
        """Run a statement as a stream of Arrow batches; the connection is busy until its end. An
        error while it is read is raised by the reader, as pyarrow's own."""
        with translated(sql):
            return self._connection.sql(sql).to_arrow_reader(rows_per_batch)

    def append(self, table: str, rows: Sequence[Row]) -> None:
        """Append a few rows. Up to about 100 rows this costs half of `insert`, beyond it twice."""
        with translated(f"append to {table}"):
            appender = self._connection.appender(table)
            appender.append_rows(rows)
            appender.flush()

    def insert(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Append Arrow rows to a table with the same columns in the same order."""
        with translated(f"insert into {table}"):
            self._connection.register("arrow_rows", rows)
            try:
                self._connection.execute(f"INSERT INTO {table} SELECT * FROM arrow_rows")
            except BaseException:
                with suppress(duckdb.Error):  # in an aborted transaction; the rollback unregisters, too
                    self._connection.unregister("arrow_rows")
                raise
            self._connection.unregister("arrow_rows")

    def write_parquet(self, sql: str, path: Path, row_group_rows: int) -> int:
        """Write a statement's rows into a file, compressed with zstd. Returns how many there were."""
        with translated(f"write {path}"):
            result = self._connection.execute(
                f"COPY ({sql}) TO {_quoted(path)} "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group_rows})"
            )
            return int(result.fetchall()[0][0])

    def load_parquet(self, table: str, path: Path) -> None:
        """Append all rows of a file. Raises StorageCorruptError if it is damaged or of another shape."""
        with translated(f"load {path}"):
            try:
                self._connection.execute(f"INSERT INTO {table} SELECT * FROM read_parquet({_quoted(path)})")
            except duckdb.Error as e:
                if _is_full(e) or isinstance(e, (duckdb.FatalException, duckdb.OutOfMemoryException)):
                    raise
                raise StorageCorruptError(f"{path.name} cannot be loaded into {table}: {e}") from e

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end of the block, roll back on any exception out of it."""
        self.execute("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            with suppress(duckdb.Error):  # already invalid? The exception in flight says why
                self._connection.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def drop_cache(self) -> None:
        """Forget all blocks that can be read from the disk again, in the whole instance.

        The caller makes sure that no other connection to it is in a statement: that one would find
        no memory. What cannot be dropped, because it is not on the disk yet, stays."""
        ((limit,),) = self.query("SELECT current_setting('memory_limit')")
        with translated("drop the cache"):
            try:
                with suppress(duckdb.OutOfMemoryException):
                    self._connection.execute("SET memory_limit = '1MiB'")
            finally:
                self._connection.execute(f"SET memory_limit = '{limit}'")

    def interrupt(self) -> None:
        """Stop the statement that another thread runs on this connection."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in this directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make a file's content durable. Never call it on a database that is open: closing the file
    would release DuckDB's lock."""
    _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    with translated(f"sync {path}"):
        fd = os.open(path, flags)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise DuckDB's and the operating system's errors as StorageFatalError or StorageFullError.

    A full disk in the middle of a checkpoint invalidates the whole instance, so that is fatal.
    """
    try:
        yield
    except (*_STORAGE_FAILURES, OSError) as e:
        if _is_full(e) and not isinstance(e, duckdb.FatalException):
            raise StorageFullError(f"no space left ({what.split(chr(10))[0][:120]}): {e}") from e
        raise StorageFatalError(f"{what.split(chr(10))[0][:120]}: {e}") from e
    except duckdb.Error as e:
        if _is_full(e):
            raise StorageFullError(f"no space left ({what.split(chr(10))[0][:120]}): {e}") from e
        if "Corrupt database file" in str(e):  # comes as the bare base class
            raise StorageCorruptError(f"{what.split(chr(10))[0][:120]}: {e}") from e
        raise
