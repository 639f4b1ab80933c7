"""SQL over the history, by `POST /sql` at a gateway: the request, its repetition, and the result.

The connection is the query's own, and closing it cancels the query: so Ctrl-C, a time-out of the caller and
a cancelled task all end the work at the server, too.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from etcray.client.errors import EtcrayError, SqlError, UnavailableError
from etcray.client.retry import EndpointRound, pause_seconds
from etcray_storage.errors import Code

if TYPE_CHECKING:
    import pyarrow as pa

Parameter = None | bool | int | float | str | bytes
Parameters = Sequence[Parameter] | Mapping[str, Parameter]

ARROW: Final = "application/vnd.apache.arrow.stream"
ANSWER_MARGIN_SECONDS: Final = 15.0
"""The server ends a query at its time limit; this is for what comes before and after."""
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
REPR_ROWS: Final = 20
CELL_CHARACTERS: Final = 60


class SqlResult:
    """The answer to a query. Rows are tuples; bytes, times and numbers have their Python types."""

    def __init__(self, revision: int, stale: bool, elapsed_ms: float, data: bytes) -> None:
        import pyarrow as pa

        self.revision: Final = revision
        """The answer is the state as of this revision of the store."""
        self.stale: Final = stale
        self.elapsed_ms: Final = elapsed_ms
        """At the server, waiting included."""
        self._table: pa.Table = pa.ipc.open_stream(data).read_all()

    @property
    def columns(self) -> list[str]:
        names: list[str] = self._table.column_names
        return names

    def arrow(self) -> pa.Table:
        return self._table

    def df(self) -> Any:
        """As a pandas DataFrame. Raises ImportError without pandas."""
        _require("pandas", "df()")
        return self._table.to_pandas()

    def pl(self) -> Any:
        """As a polars DataFrame. Raises ImportError without polars."""
        return _require("polars", "pl()").from_arrow(self._table)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches(max_chunksize=10_000):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        shown = self._table.slice(0, REPR_ROWS)
        cells = [[_text_of(cell) for cell in column.to_pylist()] for column in shown.columns]
        widths = [max(map(len, [name, *column])) for name, column in zip(self.columns, cells, strict=True)]
        rows = [self.columns, ["-" * width for width in widths], *zip(*cells, strict=True)]
        lines = []
        for row in rows:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
        more = f", {REPR_ROWS} shown" if len(self) > REPR_ROWS else ""
        lines.append(f"({len(self)} rows{more}; revision {self.revision}{', stale' if self.stale else ''})")
        return "\n".join(lines)


def _require(package: str, method: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        wanted = f"{method} needs {package}: `pip install {package}`, or use fetchall() or arrow()"
        raise ImportError(wanted) from error


def _text_of(cell: object) -> str:
    if isinstance(cell, bytes):
        cell = cell.decode(errors="backslashreplace")
    text = "NULL" if cell is None else str(cell).replace("\n", "\\n")
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"


class SqlCall:
    """One query on its way. `run` in one thread; `abort` from any other ends it."""

    def __init__(
        self,
        query: str,
        parameters: Parameters | None,
        *,
        stale: bool,
        timeout: float | None,
        rows_max: int | None,
        retry_seconds: float,
    ) -> None:
        self._seconds = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        self._retry_seconds = retry_seconds
        self._body = msgspec.json.encode(
            {
                "query": query,
                "parameters": _plain(parameters),
                "stale": stale,
                "timeout_ms": max(1, int(self._seconds * 1000)),
                "rows_max": rows_max or 0,
            }
        )
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._aborted = False

    def run(self, round_: EndpointRound, jitter: random.Random) -> SqlResult:
        """Raises SqlError, or UnavailableError if no gateway and no history could be reached in time.
        A query changes nothing, so it is sent again as long as there is hope."""
        deadline = time.monotonic() + self._retry_seconds
        failures = 0
        while True:
            endpoint = round_.current
            try:
                return self._attempt(endpoint)
            except UnavailableError as error:
                failures += 1
                round_.after_failure(Code.UNAVAILABLE, endpoint)
                pause = pause_seconds(failures, len(round_.endpoints), jitter)
                if self._aborted or not error.is_passing or time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)

    def abort(self) -> None:
        """End the connection, and so the query."""
        with self._lock:
            self._aborted = True
            sock = None if self._connection is None else self._connection.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is over already

    def _attempt(self, endpoint: str) -> SqlResult:
        connection = http.client.HTTPConnection(endpoint, timeout=self._seconds + ANSWER_MARGIN_SECONDS)
        with self._lock:
            self._connection = connection
        headers = {"Content-Type": "application/json", "Accept": ARROW}
        try:
            if self._aborted:
                raise EtcrayError(Code.CANCELED, "the query was cancelled")
            connection.request("POST", "/sql", self._body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(Code.UNAVAILABLE, f"no answer from {endpoint}: {error}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise _error(response.status, data)
        return SqlResult(
            int(response.headers["etcray-revision"]),
            response.headers["etcray-stale"] == "true",
            float(response.headers["etcray-elapsed-ms"]),
            data,
        )


class _ErrorBody(msgspec.Struct):
    code: str = ""
    message: str = ""


_CODES: Final = {
    "invalid": Code.INVALID_ARGUMENT,
    "refused": Code.PERMISSION_DENIED,
    "retention": Code.OUT_OF_RANGE,
    "timeout": Code.DEADLINE_EXCEEDED,
    "too_many_rows": Code.RESOURCE_EXHAUSTED,
    "out_of_memory": Code.RESOURCE_EXHAUSTED,
    "busy": Code.RESOURCE_EXHAUSTED,
    "cancelled": Code.CANCELED,
}


def _error(status: int, data: bytes) -> EtcrayError:
    try:
        body = msgspec.json.decode(data, type=_ErrorBody)
    except msgspec.DecodeError:
        return UnavailableError(Code.UNAVAILABLE, f"the gateway answered with HTTP status {status}")
    if body.code == "unavailable":
        is_passing = status == http.HTTPStatus.SERVICE_UNAVAILABLE
        return UnavailableError(Code.UNAVAILABLE, body.message, is_passing=is_passing)
    return SqlError(_CODES.get(body.code, Code.UNKNOWN), body.message, body.code)


def _plain(parameters: Parameters | None) -> object:
    if parameters is None:
        return []
    if isinstance(parameters, str | bytes):
        raise TypeError("parameters are a list for ?, or a mapping for $name; not a single text")
    if isinstance(parameters, Mapping):
        return {str(name): _parameter(value) for name, value in parameters.items()}
    return [_parameter(value) for value in parameters]


def _parameter(value: Parameter) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a parameter is None, a bool, a number, a text or bytes, not {type(value).__name__}")
