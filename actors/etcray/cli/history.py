"""`etcray log KEY` and `etcray diff REVISION1 REVISION2`: the two questions that everybody has."""

from __future__ import annotations

import difflib
import sys
from typing import Any, Final

from etcray.cli.kv import At
from etcray.cli.output import print_json
from etcray.cli.sql import Asked, ask
from etcray.cli.tables import json_value, text_of
from etcray.errors import OptionsError

ROWS_MAX: Final = 1_000_000
VALUE_CHARACTERS: Final = 60
"""Of a value's beginning."""

_LOG: Final = """SELECT mod_revision, sub_revision, committed_at, op, key, version, lease, author, value
    FROM history WHERE {condition} ORDER BY mod_revision DESC, sub_revision DESC"""

_DIFF: Final = """SELECT key, change, old_value, new_value, old_mod_revision, new_mod_revision
    FROM changes({first}, {last}) WHERE {condition} ORDER BY key"""


def log(key: str, at: At, *, prefix: bool, limit: int, full: bool, stale: bool, as_json: bool) -> None:
    """Every change of a key, or of all keys with a prefix, the newest first."""
    if limit < 0:
        raise OptionsError(f"--limit is not below 0, {limit} is")
    condition, parameters = key_condition(key.encode(), prefix=prefix)
    query = _LOG.format(condition=condition) + (f" LIMIT {limit}" if limit else "")
    rows, revision = _rows(query, parameters, at, stale)
    if as_json:
        print_json({"revision": revision, "changes": [_log_json(row) for row in rows]})
        return
    for row in rows:
        print(_log_line(row, with_key=prefix, full=full))
    if not rows:
        print(f"no change of {key} up to revision {revision}", file=sys.stderr)


def diff(
    first: int, last: int | None, at: At, *, prefix: str, stat: bool, stale: bool, as_json: bool
) -> None:
    """What the later revision has that the earlier one had not, and the other way round."""
    if first < 1 or (last is not None and last < first):
        raise OptionsError(
            f"REVISION1 is at least 1 and REVISION2 not before it; {first} and {last} are given"
        )
    condition, parameters = key_condition(prefix.encode(), prefix=True)
    if last is None:
        _, last = _rows("SELECT 1", [], at, stale)
    rows, _ = _rows(_DIFF.format(first=first, last=last, condition=condition), parameters, at, stale)
    if as_json:
        print_json(
            {"from_revision": first, "to_revision": last, "changes": [_diff_json(row) for row in rows]}
        )
        return
    for row in rows:
        for line in [_diff_head(row)] if stat else _diff_lines(row):
            print(line)
    counts = {
        change: sum(1 for row in rows if row["change"] == change)
        for change in ("added", "changed", "removed")
    }
    told = ", ".join(f"{count} {change}" for change, count in counts.items())
    print(f"revision {first} to {last}: {told}", file=sys.stderr)


def key_condition(key: bytes, *, prefix: bool) -> tuple[str, list[Any]]:
    """For a WHERE, with its parameters; an empty prefix is every key."""
    if not prefix:
        return "key = ?", [key]
    if not key:
        return "true", []
    end = prefix_end(key)
    return ("key >= ?", [key]) if end is None else ("key >= ? AND key < ?", [key, end])


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key that is greater than all with this prefix; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _rows(query: str, parameters: list[Any], at: At, stale: bool) -> tuple[list[dict[str, Any]], int]:
    with at.client() as client:
        result = ask(client, query, parameters, Asked(stale, ROWS_MAX, client.timeout))
    return result.arrow().to_pylist(), result.revision


def _log_line(row: dict[str, Any], *, with_key: bool, full: bool) -> str:
    parts = [
        f"{row['mod_revision']:>8}",
        f"{row['committed_at'].isoformat(sep=' ', timespec='milliseconds')}",
    ]
    if row["author"]:
        parts.append(row["author"])
    if with_key:
        parts.append(text_of(row["key"]))
    if row["op"] == "delete":
        return "  ".join([*parts, "deleted"])
    parts.append(f"v{row['version']}")
    if row["lease"]:
        parts.append(f"lease {row['lease']:x}")
    value = text_of(row["value"])
    return "  ".join([*parts, value if full else _beginning(value)])


def _beginning(text: str) -> str:
    line = text.replace("\n", "⏎")
    return line if len(line) <= VALUE_CHARACTERS else f"{line[: VALUE_CHARACTERS - 1]}…"


def _log_json(row: dict[str, Any]) -> dict[str, Any]:
    return json_value({**row, **_texts(row, "key"), **_texts(row, "value")})  # type: ignore[no-any-return]


def _diff_json(row: dict[str, Any]) -> dict[str, Any]:
    texts = {**_texts(row, "key"), **_texts(row, "old_value"), **_texts(row, "new_value")}
    return json_value({**row, **texts})  # type: ignore[no-any-return]


def _texts(row: dict[str, Any], name: str) -> dict[str, Any]:
    """As in all JSON of this command line: text where it is UTF-8, else null and the bytes in base64."""
    raw = row[name]
    try:
        return {name: None if raw is None else raw.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": raw}


_MARKS: Final = {"added": "+", "changed": "~", "removed": "-"}


def _diff_head(row: dict[str, Any]) -> str:
    return f"{_MARKS[row['change']]} {text_of(row['key'])}"


def _diff_lines(row: dict[str, Any]) -> list[str]:
    before = [] if row["old_value"] is None else text_of(row["old_value"]).splitlines()
    after = [] if row["new_value"] is None else text_of(row["new_value"]).splitlines()
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return [_diff_head(row), *(f"    {line}" for line in changed)]
