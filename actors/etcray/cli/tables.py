"""Results of SQL as people and programs want them: a table, JSON, CSV, Parquet or Arrow."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import shutil
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa

from etcray.errors import CommandFailedError, OptionsError

TABLE_ROWS_MAX: Final = 500
"""A table on the screen shows so many; the other formats give all."""

CELL_CHARACTERS_MAX: Final = 200
"""Of a value in a table. Without a terminal nothing else bounds the width of a column."""


def write(table: pa.Table, output_format: str, output: str | None) -> None:
    """Print the table, or write it to a file. Raises OptionsError, CommandFailedError."""
    writer = _WRITERS.get(output_format)
    if writer is None:
        raise OptionsError(f"--format is one of {', '.join(_WRITERS)}, not {output_format!r}")
    if output is not None:
        _write_file(Path(output), table, writer)
        return
    if output_format in _BINARY and sys.stdout.isatty():
        raise OptionsError(f"{output_format} is not for a terminal: add --output FILE, or send it on")
    writer(table, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _write_file(path: Path, table: pa.Table, writer: Callable[[pa.Table, IO[bytes]], None]) -> None:
    """All of it or nothing."""
    temporary = path.with_name(f".{path.name}.incomplete")
    try:
        with temporary.open("wb") as file:
            writer(table, file)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CommandFailedError(f"cannot write {path}: {error.strerror or error}") from error


def _write_table(table: pa.Table, file: IO[bytes]) -> None:
    file.write(render(table, shutil.get_terminal_size((0, 0)).columns).encode())


def render(table: pa.Table, width: int) -> str:
    """A table for the eye; `width` 0 stands for no limit."""
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=ROUNDED, header_style="bold", pad_edge=True)
    for field in table.schema:
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(
            Text(field.name), justify="right" if is_number else "left", overflow="ellipsis", no_wrap=True
        )
    for row in zip(*(column.to_pylist() for column in table.slice(0, TABLE_ROWS_MAX).columns), strict=True):
        shown.add_row(
            *(Text("NULL", "dim") if cell is None else Text(_shortened(text_of(cell))) for cell in row)
        )
    screen = io.StringIO()
    console = Console(
        file=screen, width=width or 100_000, force_terminal=sys.stdout.isatty(), highlight=False
    )
    console.print(shown)
    if table.num_rows > TABLE_ROWS_MAX:
        console.print(f"{table.num_rows - TABLE_ROWS_MAX} more rows: --format csv shows all")
    return screen.getvalue()


def text_of(cell: Any) -> str:
    """One value as text. Bytes are text if they are UTF-8, else hexadecimal as SQL writes them."""
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02X}" for byte in cell)
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(cell, dict | list):
        return json.dumps(json_value(cell), ensure_ascii=False)
    return str(cell)


def _shortened(text: str) -> str:
    one_line = text.replace("\r", "␍").replace("\n", "⏎")
    if len(one_line) <= CELL_CHARACTERS_MAX:
        return one_line
    return one_line[: CELL_CHARACTERS_MAX - 1] + "…"


def json_value(cell: Any) -> Any:
    """A value as JSON has it, by the rules of `POST /sql`: bytes in base64, times in ISO 8601."""
    match cell:
        case bytes():
            return base64.b64encode(cell).decode()
        case datetime.datetime() | datetime.date() | datetime.time():
            return cell.isoformat()
        case datetime.timedelta():
            return cell.total_seconds()
        case Decimal():
            return str(cell)
        case dict():
            return {str(key): json_value(value) for key, value in cell.items()}
        case list():
            return [json_value(value) for value in cell]
    return cell


def rows_as_json(table: pa.Table) -> list[dict[str, Any]]:
    """One object a row."""
    return [json_value(row) for row in table.to_pylist()]


def _write_json(table: pa.Table, file: IO[bytes]) -> None:
    for row in rows_as_json(table):
        file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _write_csv(table: pa.Table, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches(max_chunksize=10_000):
        columns = [column.to_pylist() for column in batch.columns]
        writer.writerows(
            ["" if cell is None else text_of(cell) for cell in row] for row in zip(*columns, strict=True)
        )
    text.detach()


def _write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    from pyarrow import parquet

    parquet.write_table(table, file, compression="zstd")


def _write_arrow(table: pa.Table, file: IO[bytes]) -> None:
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


_WRITERS: Final[dict[str, Callable[[pa.Table, IO[bytes]], None]]] = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
}
_BINARY: Final = {"parquet", "arrow"}
