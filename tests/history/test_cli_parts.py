"""The pure parts of the history's commands: parameters, tables, key ranges."""

from __future__ import annotations

import csv
import datetime
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from etcray.cli import tables
from etcray.cli.history import key_condition, prefix_end
from etcray.cli.history_restore import parse
from etcray.cli.sql import parse_parameters, parse_value
from etcray.errors import CommandFailedError, OptionsError

TABLE = pa.table(
    {
        "number": [1, None],
        "raw": pa.array([b"text", b"\xff\x00"]),
        "at": pa.array(
            [datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), None], pa.timestamp("us", "UTC")
        ),
        "text": ["two\nlines", "äöü"],
    }
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("1.5", 1.5),
        (".5", 0.5),
        ("true", True),
        ("NULL", None),
        ("/a", "/a"),
        ("'7'", "7"),
        ("", ""),
    ],
)
def test_a_parameter_is_read_as_its_literal_would_be(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_parameters_are_named_or_positional_and_not_both() -> None:
    assert parse_parameters([]) == []
    assert parse_parameters(["a", "1"]) == ["a", 1]
    assert parse_parameters(["key=/a=b", "n=2"]) == {"key": "/a=b", "n": 2}
    with pytest.raises(OptionsError, match="either NAME=VALUE"):
        parse_parameters(["key=/a", "2"])


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_a_key_is_below_the_end_of_a_prefix_just_if_it_has_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    is_inside = key >= prefix and (end is None or key < end)
    assert is_inside == key.startswith(prefix)


def test_an_empty_prefix_is_every_key() -> None:
    assert key_condition(b"", prefix=True) == ("true", [])
    assert key_condition(b"a", prefix=False) == ("key = ?", [b"a"])
    assert key_condition(b"\xff", prefix=True) == ("key >= ?", [b"\xff"])


@pytest.mark.parametrize("text", ["a", "@3", "a@", "a@0", "a@-1", "a@x"])
def test_a_restore_without_key_and_revision_is_refused(text: str) -> None:
    with pytest.raises(OptionsError, match="KEY@REVISION"):
        parse(text)


def test_a_restored_key_may_contain_the_separator() -> None:
    assert parse("user@host@12") == (b"user@host", 12)


def test_a_table_shows_bytes_as_text_where_they_are_text() -> None:
    shown = tables.render(TABLE, 0)
    for part in ("number", "text", "\\xFF\\x00", "2026-01-02 03:04:05.000+00:00", "two⏎lines", "NULL", "äöü"):
        assert part in shown


def test_a_table_says_how_many_rows_it_leaves_out() -> None:
    rows = tables.TABLE_ROWS_MAX + 3
    assert "3 more rows" in tables.render(pa.table({"n": list(range(rows))}), 80)


def test_every_format_gives_the_rows_back(tmp_path: Path) -> None:
    def written(output_format: str) -> bytes:
        tables.write(TABLE, output_format, str(tmp_path / output_format))
        return (tmp_path / output_format).read_bytes()

    rows = [json.loads(line) for line in written("json").splitlines()]
    assert rows[0] == {
        "number": 1,
        "raw": "dGV4dA==",
        "at": "2026-01-02T03:04:05+00:00",
        "text": "two\nlines",
    }
    assert rows[1]["raw"] == "/wA="
    lines = list(csv.reader(io.StringIO(written("csv").decode())))
    assert lines[0] == ["number", "raw", "at", "text"]
    assert lines[1] == ["1", "text", "2026-01-02 03:04:05.000+00:00", "two\nlines"]
    assert pa.ipc.open_stream(written("arrow")).read_all().equals(TABLE)
    written("parquet")
    assert parquet.read_table(tmp_path / "parquet").equals(TABLE)


def test_an_unknown_format_and_a_file_that_cannot_be_written_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="table, json, csv, parquet, arrow"):
        tables.write(TABLE, "xml", None)
    with pytest.raises(CommandFailedError, match="cannot write"):
        tables.write(TABLE, "csv", str(tmp_path / "missing" / "file"))
    assert list(tmp_path.iterdir()) == []
