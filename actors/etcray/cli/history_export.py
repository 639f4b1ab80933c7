"""`etcray history export`: revisions as Parquet files.

The rows come through the gateway, like those of any query, and the files are written here: a part
after the other, each complete before it gets its name. A revision is never split over two files. An export
that was interrupted leaves complete files; the next one begins after the last of them with `--from`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from etcray.cli import tables
from etcray.cli.interrupts import until_interrupted
from etcray.cli.kv import At
from etcray.cli.output import print_json
from etcray.cli.sql import Asked, ask
from etcray.client import Client
from etcray.errors import CommandFailedError, OptionsError

ROWS_PER_FILE_MAX: Final = 1_000_000

_BOUNDARY: Final = """SELECT max(mod_revision) FROM (
    SELECT mod_revision FROM history WHERE mod_revision BETWEEN ? AND ?
    ORDER BY mod_revision LIMIT ?)"""

_ROWS: Final = """SELECT key, value, mod_revision, sub_revision, create_revision, version, lease, op,
    committed_at, author
    FROM history WHERE mod_revision BETWEEN ? AND ? ORDER BY mod_revision, sub_revision"""


def export(
    directory: str, first: int, last: int | None, rows_per_file: int, at: At, *, as_json: bool
) -> None:
    """Write revisions `first` to `last` (None: now), both included."""
    if first < 1 or (last is not None and last < first):
        raise OptionsError(f"--from is at least 1 and --to not before it; {first} and {last} are given")
    if not 1 <= rows_per_file <= ROWS_PER_FILE_MAX:
        raise OptionsError(f"--rows-per-file is from 1 to {ROWS_PER_FILE_MAX}, not {rows_per_file}")
    target = Path(directory)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailedError(f"cannot create {target}: {error.strerror}") from error
    with until_interrupted(), at.client() as client:
        files, rows, last = _export(client, target, first, last, rows_per_file)
        if as_json:
            print_json({"files": files, "rows": rows, "from_revision": first, "to_revision": last})
        else:
            print(f"{rows} rows of revisions {first} to {last} in {len(files)} files in {target}")


def _export(
    client: Client, target: Path, first: int, last: int | None, rows_per_file: int
) -> tuple[list[str], int, int]:
    asked = Asked(stale=False, rows_max=2 * ROWS_PER_FILE_MAX, timeout_seconds=client.timeout)
    now = ask(client, "SELECT 1", [], asked).revision
    if last is not None and last > now:
        raise OptionsError(f"--to {last} is in the future: the store is at revision {now}")
    end = now if last is None else last
    files: list[str] = []
    total = 0
    begin = first
    while begin <= end:
        through = _boundary(client, begin, end, rows_per_file, asked)
        if through is None:
            break
        table = ask(client, _ROWS, [begin, through], asked).arrow()
        path = target / f"history-{begin:012}-{through:012}.parquet"
        tables.write(table, "parquet", str(path))
        print(f"{path}: {table.num_rows} rows", file=sys.stderr)
        files.append(str(path))
        total += table.num_rows
        begin = through + 1
    return files, total, end


def _boundary(client: Client, begin: int, end: int, rows: int, asked: Asked) -> int | None:
    """The last revision of the next file, or None if there are no rows any more."""
    found: Any = ask(client, _BOUNDARY, [begin, end, rows], asked).fetchall()[0][0]
    return None if found is None else int(found)
