"""One query: checked, run on a locked instance over one snapshot, and turned into an answer.

What can go wrong is an answer too. Only an error of the sandbox itself is an exception; it ends the worker.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from etcray_storage.history.allow_list import Allowed, RefusedError, check
from etcray_storage.history.messages import (
    CANCELLED,
    INVALID,
    OUT_OF_MEMORY,
    REFUSED,
    RETENTION,
    REVISION_METADATA,
    TIMEOUT,
    TOO_MANY_ROWS,
    Answer,
    Query,
    Run,
)
from etcray_storage.history.schema import RETENTION_MARK, TABLE_FUNCTIONS, TABLES, statements
from etcray_storage.limits import HISTORY_QUERY_SQL_BYTES_MAX, MIB
from etcray_storage.query_engine import (
    Failure,
    Parser,
    QueryEngine,
    QueryFailedError,
    failed,
    without_explain,
)

ROWS_PER_BATCH: Final = 8_192


class _TooMuchError(Exception):
    """The result is larger than the query may have it."""


class Sandbox:
    """Runs one query after the other; each on an instance of its own."""

    def __init__(self) -> None:
        self._parser = Parser()
        self._engine: QueryEngine | None = None
        """While a query runs; `interrupt` is called from another thread."""
        self._interrupted = False

    def run(self, run: Run, relations: Mapping[str, pa.Table]) -> Answer:
        """Answer a query. `relations` are the tail and the side tables, as `schema` names them."""
        begun = time.monotonic()
        query = run.query
        arrow, rows, code, message = b"", 0, "", ""
        try:
            prefix, allowed = self._judge(query)
            if allowed.lists_tables:
                arrow, rows = _listing(run.position)
            else:
                arrow, rows = self._execute(run, relations, prefix, allowed, begun)
        except RefusedError as e:
            code, message = REFUSED, str(e)
        except _TooMuchError as e:
            code, message = TOO_MANY_ROWS, str(e)
        except QueryFailedError as e:
            code, message = self._explained(e, query, run.memory_mib)
        self._interrupted = False
        elapsed_ms = (time.monotonic() - begun) * 1000
        return Answer(code, message, run.position, rows, elapsed_ms, arrow)

    def interrupt(self) -> None:
        """Stop the running query; from any thread."""
        self._interrupted = True
        engine = self._engine
        if engine is not None:
            engine.interrupt()

    def _judge(self, query: Query) -> tuple[str, Allowed]:
        if len(query.sql.encode(errors="replace")) > HISTORY_QUERY_SQL_BYTES_MAX:
            raise RefusedError(f"a statement has at most {HISTORY_QUERY_SQL_BYTES_MAX} bytes")
        try:
            count = self._parser.count(query.sql)
        except QueryFailedError as e:
            if e.failure is Failure.DENIED:
                raise RefusedError(f"this kind of statement is not allowed: only queries are ({e})") from e
            raise
        if count != 1:
            raise RefusedError(f"one statement at a time: there are {count} here")
        prefix, rest = without_explain(query.sql)
        return prefix, check(self._parser.tree(rest))

    def _execute(
        self, run: Run, relations: Mapping[str, pa.Table], prefix: str, allowed: Allowed, begun: float
    ) -> tuple[bytes, int]:
        query = run.query
        made = statements(allowed.names, run.parts, run.position, run.gaps)
        engine = QueryEngine(relations, made, run.parts, run.memory_mib, query.timeout_ms)
        self._engine = engine
        reader = None
        try:
            if self._interrupted:
                raise QueryFailedError(Failure.INTERRUPTED, "cancelled before it began")
            reader = engine.run(query.sql, query.parameters, ROWS_PER_BATCH)
            return _collect(reader, query, run.position, begun + query.timeout_ms / 1000)
        except (_TooMuchError, QueryFailedError):
            raise
        except Exception as e:
            raise failed(e) from e
        finally:
            self._engine = None
            if reader is not None:
                reader.close()
            engine.close()

    def _explained(self, error: QueryFailedError, query: Query, memory_mib: int) -> tuple[str, str]:
        message = str(error)
        if error.failure is Failure.INTERRUPTED and self._interrupted:
            return CANCELLED, "the query was cancelled"
        if error.failure is Failure.INTERRUPTED:
            return (
                TIMEOUT,
                f"the query was stopped after {query.timeout_ms} ms: give it more time, or less to do",
            )
        if error.failure is Failure.OUT_OF_MEMORY:
            first_line = message.partition("\n")[0]  # then comes advice about settings, which are locked here
            return OUT_OF_MEMORY, f"the query needs more than its {memory_mib} MiB of memory: {first_line}"
        if error.failure is Failure.DENIED:
            return REFUSED, f"this query does more than read the history's tables: {message}"
        if RETENTION_MARK in message:
            return RETENTION, message.partition(RETENTION_MARK)[2]
        return INVALID, message


def _collect(reader: pa.RecordBatchReader, query: Query, revision: int, deadline: float) -> tuple[bytes, int]:
    """Read a result to its end, or to the first limit."""
    out = io.BytesIO()
    rows = 0
    schema = reader.schema.with_metadata(
        {**(reader.schema.metadata or {}), REVISION_METADATA: str(revision).encode()}
    )
    with pa.ipc.new_stream(out, schema) as writer:
        for batch in reader:
            rows += batch.num_rows
            if rows > query.rows_max:
                raise _TooMuchError(
                    f"the result has more than {query.rows_max} rows: add a LIMIT, aggregate, or allow more"
                )
            if time.monotonic() > deadline:
                raise QueryFailedError(Failure.INTERRUPTED, "the time is over")
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            if out.tell() > query.bytes_max:
                raise _TooMuchError(
                    f"the result has more than {query.bytes_max / MIB:.0f} MiB: select fewer columns or rows"
                )
    return out.getvalue(), rows


def _listing(revision: int) -> tuple[bytes, int]:
    """SHOW TABLES, from the contract; DuckDB's own would show what is behind the tables."""
    entries = [
        *((name, "table", what) for name, what in TABLES.items()),
        *((name, "table function", what) for name, what in TABLE_FUNCTIONS.items()),
    ]
    columns = [pa.array(values, pa.string()) for values in zip(*entries, strict=True)]
    table = pa.table(dict(zip(("name", "kind", "description"), columns, strict=True)))
    table = table.replace_schema_metadata({REVISION_METADATA: str(revision).encode()})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue(), table.num_rows
