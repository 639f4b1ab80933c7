"""`etcray sql QUERY`: one query, its parameters, its result in a format."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from etcray.cli import tables
from etcray.cli.interrupts import until_interrupted
from etcray.cli.kv import At
from etcray.client import Client
from etcray.client.sql import SqlResult
from etcray.errors import OptionsError

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+|\d*\.\d+([eE][-+]?\d+)?)")

Parameters = list[Any] | dict[str, Any]


class Asked(NamedTuple):
    """How queries are to be carried out."""

    stale: bool
    rows_max: int
    timeout_seconds: float


def run(
    text: str, parameters: list[str], output_format: str, output: str | None, at: At, asked: Asked
) -> None:
    """Carry out one query and print it; what it took goes to standard error."""
    if not text.strip():
        raise OptionsError("there is no query")
    with until_interrupted(), at.client() as client:
        result = ask(client, text, parse_parameters(parameters), asked)
        tables.write(result.arrow(), output_format, output)
        if output_format == "table" or output is not None:
            print(summary(result), file=sys.stderr)


def ask(client: Client, text: str, parameters: Parameters, asked: Asked) -> SqlResult:
    """Raises EtcrayError."""
    return client.sql(
        text, parameters, stale=asked.stale, timeout=asked.timeout_seconds, rows_max=asked.rows_max
    )


def summary(result: SqlResult) -> str:
    """What every result says of itself."""
    rows = result.arrow().num_rows
    age = " (stale)" if result.stale else ""
    return (
        f"{rows} row{'' if rows == 1 else 's'}, revision {result.revision}{age}, {result.elapsed_ms:.0f} ms"
    )


def parse_parameters(texts: list[str]) -> Parameters:
    """Positional values, or named ones; not both. A number is a number, everything else is text;
    quotes make text of a number. Raises OptionsError."""
    named = [_NAMED.fullmatch(text) for text in texts]
    if texts and all(named):
        return {found[1]: parse_value(found[2]) for found in named if found is not None}
    if any(named):
        raise OptionsError("--param is either NAME=VALUE everywhere, for $NAME, or VALUE everywhere, for ?")
    return [parse_value(text) for text in texts]


def parse_value(text: str) -> Any:
    """As SQL would read the literal, without the need to quote what is plainly text."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    match text.lower():
        case "null":
            return None
        case "true" | "false":
            return text.lower() == "true"
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    return text
