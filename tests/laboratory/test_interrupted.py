"""A sweep that is killed goes on where it was, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etcray_bench.results.reading import read_runs
from etcray_bench.results.store import ResultsError
from tests.etcd_tools import etcd_program

SIZES = (1_000, 2_000, 3_000, 4_000)
COMMAND = "from etcray_bench.experiments.commands import experiment_app; experiment_app()"
WAIT_SECONDS_MAX = 120.0


def arguments(path: Path, data: Path) -> list[str]:
    sizes = ",".join(map(str, SIZES))
    chosen = ["--set", "system=etcd", "--set", f"keys={sizes}"]
    return [
        sys.executable,
        "-c",
        COMMAND,
        "run",
        "memory",
        *chosen,
        "--results",
        str(path),
        "--data-dir",
        str(data),
    ]


def processes_below(directory: Path) -> list[int]:
    """Those that were started with a path in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if os.fsencode(directory) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def points_in(path: Path) -> int:
    try:
        return len(read_runs(path)[0].points)
    except (ResultsError, IndexError):
        return 0


def wait_for_points(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while points_in(path) < count:
        assert process.poll() is None, "the sweep has ended before it could be interrupted"
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS_MAX} s for {count} points"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, how: signal.Signals) -> None:
    if etcd_program("3.5") is None:
        pytest.skip("etcd 3.5 is not installed")
    path, data = tmp_path / "results.duckdb", tmp_path / "data"
    data.mkdir()
    with subprocess.Popen(arguments(path, data), stderr=subprocess.DEVNULL) as sweep:
        wait_for_points(path, 2, sweep)
        sweep.send_signal(how)
        assert sweep.wait(WAIT_SECONDS_MAX) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while processes_below(data):
        assert time.monotonic() < deadline, f"{processes_below(data)} outlive the laboratory"
        time.sleep(0.05)
    (before,) = read_runs(path)
    assert 2 <= len(before.points) < len(SIZES)
    assert before.finished_at is None

    again = subprocess.run(arguments(path, data), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (
        f"goes on with run 1 in {path}, which has {len(before.points)} of {len(SIZES)} points" in again.stderr
    )
    (after,) = read_runs(path)
    assert after.finished_at is not None
    assert after.points[: len(before.points)] == before.points, "what was there is left as it was"
    assert [point.variables["keys"] for point in after.points] == list(SIZES)
    assert not any(point.error for point in after.points)
    figures = [point.samples[0].figures["member_resident_mib"] for point in after.points]
    assert min(figures) > 1
