"""`etcray history status`: what the history of a running cluster holds."""

from __future__ import annotations

import typer

from etcray.cli.output import print_json
from etcray.cli.screen import history_cells, state_of, status_json
from etcray.cluster import Cluster
from etcray.errors import CommandFailedError


def status(name: str, *, as_json: bool) -> None:
    """Raises ClusterNotFoundError, or CommandFailedError if the cluster keeps no history."""
    cluster = Cluster.connect(name)
    try:
        report = cluster.status()
    finally:
        cluster.close()
    if report.history is None:
        raise CommandFailedError(f"cluster {name} keeps no history: it was started with --no-history")
    if as_json:
        print_json(status_json(report)["history"])
        return
    history = report.history
    _, held, behind, _ = history_cells(history)
    typer.echo(
        f"revisions {history.first_revision} to {history.revision}, {history.rows} rows, {held} on disk"
    )
    typer.echo(
        f"{behind} {history.source}".rstrip() + f", pid {history.process_id or '-'}, {state_of(history)}"
    )
    if history.note:
        typer.echo(history.note)
