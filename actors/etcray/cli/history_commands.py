"""The command line of the history: `sql`, `log`, `diff`, and `history ...`. As in `main`: names, options and
help; what the commands do is imported when they run."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from etcray.cli.options import (
    DEFAULT_ENDPOINTS,
    CommandTimeout,
    Endpoints,
    Json,
    Key,
    Name,
    Prefix,
)

SQL_TIMEOUT_SECONDS: Final = 30.0

Stale = Annotated[
    bool,
    typer.Option("--stale", help="Answer from what the history has now, without waiting for newer writes."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Instead of standard output.", show_default=False),
]
RowsMax = Annotated[int, typer.Option("--rows-max", help="A result with more rows is an error.")]
Revision = Annotated[int, typer.Argument(metavar="REVISION", show_default=False)]

history_app = typer.Typer(
    help="The history of all revisions: its state, copies of it, values from it.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(sql)
    app.command()(log)
    app.command()(diff)
    app.add_typer(history_app, name="history")


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]", help="- reads it from standard input. None: a prompt.", show_default=False
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="[NAME=]VALUE", help="For ? or $NAME in the query; may be repeated."
        ),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", "-f", help="table, json, csv, parquet or arrow.")
    ] = "table",
    output: Output = None,
    stale: Stale = False,
    rows_max: RowsMax = 100_000,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = SQL_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Ask the history of all revisions in DuckDB's SQL; SHOW TABLES and DESCRIBE say what there is."""
    from etcray.cli import sql as program
    from etcray.cli import sql_prompt
    from etcray.cli.kv import At

    asked = program.Asked(stale=stale, rows_max=rows_max, timeout_seconds=command_timeout)
    at = At(locals())
    if query is None and sys.stdin.isatty() and output is None:
        sql_prompt.run(at, asked)
        return
    text = sys.stdin.read() if query in (None, "-") else str(query)
    program.run(text, parameter or [], "json" if json else output_format, output, at, asked)


def log(
    key: Key,
    prefix: Prefix = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The newest so many; 0 is all.")] = 0,
    values: Annotated[bool, typer.Option("--values", help="Values in full, not their beginnings.")] = False,
    stale: Stale = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = SQL_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show who changed a key, when, and to what; the newest change first."""
    from etcray.cli import history
    from etcray.cli.kv import At

    history.log(key, At(locals()), prefix=prefix, limit=limit, full=values, stale=stale, as_json=json)


def diff(
    from_revision: Annotated[int, typer.Argument(metavar="REVISION1", show_default=False)],
    to_revision: Annotated[
        int | None, typer.Argument(metavar="[REVISION2]", help="Left out: now.", show_default=False)
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Only keys that start with this.")] = "",
    stat: Annotated[bool, typer.Option("--stat", help="Only which keys, and how many.")] = False,
    stale: Stale = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = SQL_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show what is different between two revisions."""
    from etcray.cli import history
    from etcray.cli.kv import At

    history.diff(
        from_revision, to_revision, At(locals()), prefix=prefix, stat=stat, stale=stale, as_json=json
    )


@history_app.command()
def status(name: Name = "default", json: Json = False) -> None:
    """Show how far the history of a running cluster is, and what it holds."""
    from etcray.cli import history_status

    history_status.status(name, as_json=json)


@history_app.command()
def export(
    directory: Annotated[str, typer.Argument(metavar="DIRECTORY", show_default=False)],
    from_revision: Annotated[int, typer.Option("--from", help="The first revision.")] = 1,
    to_revision: Annotated[
        int | None, typer.Option("--to", help="The last revision. Left out: now.", show_default=False)
    ] = None,
    rows_per_file: Annotated[
        int, typer.Option("--rows-per-file", help="About so many in each file.")
    ] = 500_000,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = SQL_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Write revisions as Parquet files, which any tool reads."""
    from etcray.cli import history_export
    from etcray.cli.kv import At

    history_export.export(directory, from_revision, to_revision, rows_per_file, At(locals()), as_json=json)


@history_app.command()
def restore(
    key_at_revision: Annotated[str, typer.Argument(metavar="KEY@REVISION", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="If the key did not exist then, delete it.")
    ] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = SQL_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Write the value that a key had at a revision, unless somebody changes the key meanwhile."""
    from etcray.cli import history_restore
    from etcray.cli.kv import At

    history_restore.restore(key_at_revision, At(locals()), dry_run=dry_run, delete=delete, as_json=json)
