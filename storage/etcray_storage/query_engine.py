"""DuckDB for strangers' SQL: an instance of its own for each query, in memory, locked.

The other module that imports DuckDB (`engine`) owns files. This one never opens a database file: it sees
Parquet files that it is told by name, and Arrow tables that it is handed. Everything in here takes for
granted that it runs in a process that may be killed.

What the lock consists of, and what each piece stops, in the order in which they are set:

- memory, threads and no place to spill to: a query's own appetite;
- no Python variables by name (`python_enable_replacements`), no extensions, no secrets;
- `allowed_paths`: exactly the part files, and only then no other file at all (the other order is refused);
- a limit on the execution time, for every connection of the instance;
- the configuration itself, last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

import duckdb
import pyarrow as pa

QueryParameters = Sequence[Any] | Mapping[str, Any]

SCHEMA: Final = "store"
"""Where the relations are that users do not name."""

_EXPLAIN: Final = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s+", re.IGNORECASE)


class Failure(Enum):
    """Why a query failed, as far as DuckDB can tell."""

    INVALID = "invalid"
    DENIED = "denied"
    INTERRUPTED = "interrupted"
    OUT_OF_MEMORY = "out_of_memory"


class QueryFailedError(Exception):
    """A query failed; the message is DuckDB's own, with the place in the statement."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class Parser:
    """DuckDB's parser on an instance that holds nothing. Parsing executes nothing."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(
            ":memory:", config={"threads": 1, "async_threads": 0, "memory_limit": "64MiB"}
        )
        self._connection.execute("SET temp_directory = ''")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def count(self, sql: str) -> int:
        """How many statements there are. Raises QueryFailedError for a syntax error."""
        try:
            return len(self._connection.extract_statements(sql))
        except ValueError as e:  # a kind of statement that the client library does not know
            raise QueryFailedError(Failure.DENIED, str(e)) from e
        except duckdb.Error as e:
            raise failed(e) from e

    def tree(self, sql: str) -> str:
        """The syntax tree of a SELECT, as JSON; for anything else JSON that says so."""
        try:
            found = self._connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()
        except duckdb.Error as e:
            raise failed(e) from e
        return str(found[0][0])

    def close(self) -> None:
        self._connection.close()


def without_explain(sql: str) -> tuple[str, str]:
    """Split EXPLAIN, or EXPLAIN ANALYZE, from the statement behind it."""
    match = _EXPLAIN.match(sql)
    return (match[0], sql[match.end() :]) if match else ("", sql)


class QueryEngine:
    """One locked instance. Not thread-safe, but `interrupt` may be called from any thread."""

    def __init__(
        self,
        relations: Mapping[str, pa.Table],
        statements: Sequence[str],
        paths: Sequence[str],
        memory_limit_mib: int,
        timeout_ms: int,
    ) -> None:
        """Make `relations` known as views of the schema `store`, run the trusted `statements`, which may
        read the files `paths`, then lock."""
        self._connection = duckdb.connect(
            ":memory:", config={"threads": 1, "async_threads": 0, "memory_limit": f"{memory_limit_mib}MiB"}
        )
        run = self._connection.execute
        run("SET TimeZone = 'UTC'")
        run("SET temp_directory = ''")
        run("SET max_temp_directory_size = '0GB'")
        run("SET python_enable_replacements = false")
        run("SET autoinstall_known_extensions = false")
        run("SET autoload_known_extensions = false")
        run("SET allow_community_extensions = false")
        run("SET allow_persistent_secrets = false")
        run(f"CREATE SCHEMA {SCHEMA}")
        for name, table in relations.items():
            self._connection.register(f"arrow_{name}", table)
            run(f"CREATE VIEW {SCHEMA}.{name} AS SELECT * FROM arrow_{name}")
        for statement in statements:
            try:
                run(statement)
            except duckdb.Error as e:
                raise failed(e) from e
        run("SET allowed_paths = $1", [list(paths)])
        run("SET enable_external_access = false")
        run(f"SET GLOBAL max_execution_time = {timeout_ms}")
        run("SET lock_configuration = true")

    def run(self, sql: str, parameters: QueryParameters, rows_per_batch: int) -> pa.RecordBatchReader:
        """Start a statement. Its result comes as it is computed; an error on the way is a duckdb or Arrow
        error, which `failed` explains."""
        try:
            return self._connection.sql(sql, params=parameters or None).to_arrow_reader(rows_per_batch)
        except (duckdb.Error, ValueError, TypeError, MemoryError) as e:
            raise failed(e) from e

    def interrupt(self) -> None:
        """Stop the statement that runs."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


def failed(error: BaseException) -> QueryFailedError:
    """Any error that came out of a query, as one of ours."""
    if isinstance(error, QueryFailedError):
        return error
    text = str(error)
    if isinstance(error, (duckdb.InterruptException, KeyboardInterrupt)) or "INTERRUPT Error" in text:
        return QueryFailedError(Failure.INTERRUPTED, text)
    if isinstance(error, (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError)) or (
        "Out of Memory Error" in text or "bad_alloc" in text
    ):
        return QueryFailedError(Failure.OUT_OF_MEMORY, text)
    if isinstance(error, duckdb.PermissionException):
        return QueryFailedError(Failure.DENIED, text)
    return QueryFailedError(Failure.INVALID, text)
