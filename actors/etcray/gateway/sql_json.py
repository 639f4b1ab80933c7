"""Answers of queries as JSON. Called in a thread: an answer may have a million rows.

What JSON has no form for: BLOB is base64, a time is ISO 8601 in UTC, integers and decimals that a double does
not hold exactly are strings, infinity and NaN are strings. The type of each column says what it was.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pyarrow as pa

from etcray.history.api import QueryReply

INTEGER_EXACT_MAX: Final = 2**53
"""Beyond it JSON parsers that only know doubles would change a number."""

_encode = msgspec.json.Encoder().encode


def json_answer(reply: QueryReply) -> bytes:
    """The body of a JSON answer."""
    table = pa.ipc.open_stream(reply.arrow).read_all()
    columns = [_column(table.column(place), field.type) for place, field in enumerate(table.schema)]
    return _encode(
        {
            "revision": reply.revision,
            "stale": reply.stale,
            "columns": [{"name": field.name, "type": type_name(field)} for field in table.schema],
            "rows": list(zip(*columns, strict=True)),
            "row_count": table.num_rows,
            "elapsed_ms": round(reply.elapsed_ms, 3),
        }
    )


def type_name(field: pa.Field) -> str:
    """In SQL's words."""
    kind = field.type
    if (field.metadata or {}).get(b"ARROW:extension:name") == b"arrow.json":
        return "JSON"
    for name, test in _NAMES:
        if test(kind):
            return name
    return str(kind).upper()


_NAMES: Final[tuple[tuple[str, Callable[[pa.DataType], bool]], ...]] = (
    ("BOOLEAN", pa.types.is_boolean),
    ("BIGINT", pa.types.is_int64),
    ("INTEGER", pa.types.is_int32),
    ("UBIGINT", pa.types.is_uint64),
    ("DOUBLE", pa.types.is_float64),
    ("VARCHAR", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    ("BLOB", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
    ("TIMESTAMP WITH TIME ZONE", lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None),
    ("TIMESTAMP", pa.types.is_timestamp),
    ("DATE", pa.types.is_date),
    ("TIME", pa.types.is_time),
)


def _column(column: pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_int32(kind):
        return values
    return [plain(value) for value in values]


def plain(value: Any) -> Any:
    """The value in what JSON has."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= INTEGER_EXACT_MAX else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            if value.tzinfo is None:
                return value.isoformat()
            return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"
        case decimal.Decimal():
            number = float(value)
            return number if decimal.Decimal(number) == value else str(value)
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case _:
            return str(value)
