"""From the command to the first acknowledged put, with no Ray running; and what of that is Ray's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from etcray.client import Client, EtcrayError
from etcray_bench.etcd import free_ports
from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.system import SystemFailedError

START_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 60.0

BARE_RAY: Final = """
import os
os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})
import ray
ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2, object_store_memory=200 * 2**20)

class Empty:
    def ready(self):
        return True

actors = [ray.remote(Empty).options(num_cpus=0).remote() for _ in range(5)]
assert all(ray.get([actor.ready.remote() for actor in actors]))
print("ready", flush=True)
input()
"""
"""As many empty actors as a cluster of three has members, gateways and supervisors."""


class Start(Experiment):
    name = "start"
    question = "How long does `etcray up` take until the first acknowledged put, and how much of it is Ray's?"
    variables = (
        Variable(
            name="program",
            values=("etcray up", "bare Ray"),
            quick=("etcray up", "bare Ray"),
            about="what is started",
            in_turns=True,
        ),
    )
    plots = (Plot(kind="bars", x="program", y="ready_seconds", y_label="seconds until it is ready"),)
    repetitions = 5
    measures_alone = True
    caption = (
        "Bare Ray: a Python that calls ray.init() and starts five empty actors. No Ray runs before either."
    )

    def measure_alone(self, point: PointValues, settings: Settings, tell: Teller) -> Sample:
        started_at = now()
        tell(f"starting {point['program']}")
        measure = start_etcray if point["program"] == "etcray up" else start_bare_ray
        directory = Path(tempfile.mkdtemp(prefix="start-", dir=settings.directory))
        ray_directory = tempfile.mkdtemp(prefix="etcray-lab-", dir="/tmp")  # short, for Ray's sockets
        try:
            seconds = measure(directory, ray_directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            shutil.rmtree(ray_directory, ignore_errors=True)
        return Sample(
            system="etcray" if point["program"] == "etcray up" else "ray",
            started_at=started_at,
            seconds=seconds,
            figures={"ready_seconds": seconds},
        )


def start_etcray(directory: Path, ray_directory: str) -> float:
    """In the foreground, as a person does it. Raises SystemFailedError."""
    (port,) = free_ports(1)
    endpoint = f"127.0.0.1:{port}"
    arguments = ["-m", "etcray.cli", "up", "--data-dir", str(directory / "data"), "--listen", endpoint]

    def is_served() -> bool:
        # A new client each time: one that was refused waits before it tries again.
        try:
            with Client(endpoint, timeout=1.0) as client:
                client.put("first", "put")
        except EtcrayError:
            return False
        return True

    environment = {"ETCRAY_RUN_DIR": str(directory / "run"), "ETCRAY_RAY_DIR": ray_directory}
    return seconds_until(arguments, environment, directory, lambda process: is_served())


def start_bare_ray(directory: Path, ray_directory: str) -> float:
    """Raises SystemFailedError."""

    def says_so(process: subprocess.Popen[str]) -> bool:
        assert process.stdout is not None
        return process.stdout.readline().startswith("ready")

    return seconds_until(["-c", BARE_RAY], {"RAY_TMPDIR": ray_directory}, directory, says_so)


def seconds_until(
    arguments: list[str],
    environment: dict[str, str],
    directory: Path,
    is_ready: Callable[[subprocess.Popen[str]], bool],
) -> float:
    """Start Python with these arguments; it is ended once it was ready."""
    begun = time.perf_counter()
    with (directory / "errors.log").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            while not is_ready(process):
                if process.poll() is not None or time.perf_counter() > begun + START_SECONDS_MAX:
                    errors.seek(0)
                    last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
                    raise SystemFailedError(f"it did not get ready: {last}")
                time.sleep(0.01)
            return time.perf_counter() - begun
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Cleanly if it can be; then whatever is left of its session."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()
