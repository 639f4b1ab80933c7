"""`etcray up`: a cluster in the foreground, or the same process in the background.

Signals while it starts are remembered and obeyed at the next step; starting Ray is one step, and is not
left half done. From then on Ctrl-C, SIGTERM and SIGHUP mean: stop cleanly. Once that has begun they
are ignored.

Ray prints some of its own news (a worker died) on the standard output of whoever connected to it. That
goes to the log file in the cluster's directory, as does all output of a detached cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from etcray import run_file, state_file
from etcray.cli.output import print_json
from etcray.cli.screen import Screen, open_screen
from etcray.cluster import Cluster, describe_problems, hopeless
from etcray.errors import ClusterNotFoundError, NotReadyError
from etcray.launch import LaunchOptions, check_options

LOG_NAME: Final = "up.log"
REFRESH_SECONDS: Final = 0.5
READY_SECONDS: Final = 120.0
DETACHED_READY_SECONDS: Final = READY_SECONDS + 30.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequested(Exception):
    """A signal came before the cluster was up."""


class _Signals:
    """Remembers that one came."""

    def __init__(self) -> None:
        self.came = False
        self._ray_runs = False
        self.install()

    def install(self) -> None:
        """Again after Ray has started: it takes SIGTERM for itself.

        Ignored signals stay ignored in the processes that are started, and a closing terminal
        signals all of them. So SIGHUP is ignored until Ray's processes run, and obeyed then."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        if not self._ray_runs:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._ray_runs = True

    def check(self) -> None:
        if self.came:
            raise _StopRequested

    def wait(self, seconds: float) -> bool:
        """True once a signal has come; at the latest after so long."""
        deadline = time.monotonic() + seconds
        while not self.came and time.monotonic() < deadline:
            time.sleep(min(0.05, seconds))
        return self.came

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True


def cluster_directory(options: LaunchOptions) -> Path:
    return Path(options.data_dir).expanduser().absolute() / options.name


def run(options: LaunchOptions, as_json: bool) -> None:
    """In the foreground. Returns after a clean stop; raises ClusterError or OperatingError."""
    check_options(options)
    directory = cluster_directory(options)
    state_file.make_directory(directory)
    signals = _Signals()
    terminal = sys.stdout
    with (directory / LOG_NAME).open("a", buffering=1) as log:
        screen = open_screen(terminal, str(directory), as_json=as_json)
        if terminal.isatty() or as_json:
            sys.stdout = log
        try:
            _run(options, screen, signals)
        except _StopRequested:
            screen.step("stopped before the cluster was up")
        finally:
            screen.close()
            sys.stdout = terminal


def _run(options: LaunchOptions, screen: Screen, signals: _Signals) -> None:
    def tell(step: str) -> None:
        signals.check()
        screen.step(step)

    cluster = Cluster.launch_with(options, tell=tell)
    signals.install()
    try:
        _wait_ready(cluster, screen, signals)
        while not signals.wait(REFRESH_SECONDS):
            screen.show(cluster.status())
    except ClusterNotFoundError:
        screen.step("the cluster was stopped from elsewhere")
    finally:
        screen.step("stopping: members write what they hold")
        cluster.stop()
    screen.step("stopped")


def _wait_ready(cluster: Cluster, screen: Screen, signals: _Signals) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        signals.check()
        status = cluster.status()
        screen.show(status)
        if status.ready:
            cluster.announce(status)
            return
        if hopeless(status):
            raise NotReadyError(hopeless(status))
        if time.monotonic() > deadline:
            raise NotReadyError(f"not ready after {READY_SECONDS:.0f} s: {describe_problems(status)}")
        signals.wait(0.1)


# --- in the background ------------------------------------------------------------------------


def run_detached(options: LaunchOptions, as_json: bool) -> None:
    """Start `etcray up` in a session of its own, and return when its cluster serves.

    Raises NotReadyError with what it said if it does not."""
    check_options(options)
    directory = cluster_directory(options)
    state_file.make_directory(directory)
    path = directory / LOG_NAME
    with path.open("ab") as log:
        begin = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "etcray.cli", "up", *arguments_of(options)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    endpoints = _wait_for_record(child, options.name, path, begin)
    content = {
        "name": options.name,
        "process_id": child.pid,
        "endpoints": list(endpoints),
        "log": str(path),
        "data_directory": str(directory),
    }
    # The child goes on after this process: nobody will ask for its exit code.
    child.returncode = 0
    if as_json:
        print_json(content)
        return
    typer.echo(f"cluster {options.name} serves on {','.join(endpoints)} (pid {child.pid}, log {path})")
    of_name = "" if options.name == "default" else f" --name {options.name}"
    typer.echo(f"`etcray status{of_name}` shows it, `etcray down{of_name}` stops it")


def arguments_of(options: LaunchOptions) -> list[str]:
    """The options of `up` that mean the same."""
    arguments = ["--name", options.name, "--gateways", str(options.gateways), "--listen", options.listen]
    arguments += ["--data-dir", str(Path(options.data_dir).expanduser().absolute())]
    if options.nodes is not None:
        arguments += ["--nodes", str(options.nodes)]
    if options.address is not None:
        arguments += ["--address", options.address]
    if options.replace_after is not None:
        arguments += ["--replace-after", str(options.replace_after)]
    if not options.history:
        arguments.append("--no-history")
    if options.history_retention_seconds is not None:
        arguments += ["--history-retention-age", f"{options.history_retention_seconds}s"]
    if options.history_retention_revisions is not None:
        arguments += ["--history-retention-revisions", str(options.history_retention_revisions)]
    if options.history_retention_bytes is not None:
        arguments += ["--history-retention-bytes", str(options.history_retention_bytes)]
    if options.transport is not None:
        arguments += ["--transport", options.transport]
    if options.durability is not None:
        arguments += ["--durability", options.durability]
    for name, value in options.tune.items():
        arguments += ["--tune", f"{name}={value}"]
    if options.dashboard:
        arguments.append("--dashboard")
    return arguments


def _wait_for_record(child: subprocess.Popen[bytes], name: str, log: Path, begin: int) -> tuple[str, ...]:
    deadline = time.monotonic() + DETACHED_READY_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise NotReadyError(_last_words(log, begin) or f"it ended with exit code {child.returncode}")
        record = run_file.read(name)
        if record is not None and record.process_id == child.pid and record.endpoints:
            return record.endpoints
        time.sleep(0.05)
    child.terminate()
    child.wait()
    raise NotReadyError(f"not ready after {DETACHED_READY_SECONDS:.0f} s; see {log}")


def _last_words(log: Path, begin: int) -> str:
    """What the child wrote: its error, or else all of it."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return errors[-1] if errors else "\n".join(lines[-20:])
