"""`etcray status` and `etcray down`."""

from __future__ import annotations

import os
import signal
import time
from typing import Final

import typer

from etcray import run_file
from etcray.cli.output import print_json
from etcray.cli.screen import describe, status_json
from etcray.cluster import Cluster
from etcray.errors import NotReadyError
from etcray.run_file import RunRecord

DOWN_SECONDS: Final = 90.0


def status(name: str, address: str | None, as_json: bool) -> None:
    """Raises ClusterNotFoundError if nothing of that name runs."""
    record = run_file.read(name)
    cluster = Cluster.connect(name, address)
    try:
        report = cluster.status()
    finally:
        cluster.close()
    directory = record.data_directory if record is not None else ""
    if as_json:
        print_json({"data_directory": directory, **status_json(report)})
    else:
        typer.echo("\n".join(describe(report, directory)))


def down(name: str, address: str | None, as_json: bool) -> None:
    """Let the launching command stop its cluster; or do it here, if a program launched it, or if it
    runs in a Ray where its launcher has gone. Raises ClusterNotFoundError, NotReadyError."""
    record = run_file.read(name)
    if address is None and record is not None and record.is_command and record.launcher_lives:
        _end_launcher(record)
    else:
        Cluster.connect(name, address).stop()
        if record is not None and not record.launcher_lives:
            run_file.remove(name)
    if as_json:
        print_json({"name": name, "stopped": True})
    else:
        typer.echo(f"cluster {name} is stopped")


def _end_launcher(record: RunRecord) -> None:
    os.kill(record.process_id, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while record.launcher_lives:
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"process {record.process_id} has not stopped its cluster in {DOWN_SECONDS:.0f} s; "
                f"its log is in {record.data_directory}"
            )
        time.sleep(0.05)
