"""A cluster that runs in a process of its own, as the tester sees it: processes, gateways, state."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from etcray_bench.systems.hosted import HostedProcess
from etcray_bench.systems.system import SystemFailedError
from tests.consistency.fault_files import FAULTS_VARIABLE, MISTAKE_VARIABLE

ROOT: Final = Path(__file__).parents[2]
STOP_SECONDS_MAX: Final = 60.0
GONE_SECONDS_MAX: Final = 20.0
STARTS_MAX: Final = 3


class RunningCluster:
    """Start it with `start`; `stop` ends every process that `start` began."""

    def __init__(
        self, directory: Path, nodes: int = 3, gateways: int = 2, mistake: str = "", transport: str = "ray"
    ) -> None:
        """Its members make the `mistake`, a name in `tests.simulation.mutants`."""
        self.directory = directory
        self._mistake = mistake
        self._transport = transport
        self.faults = directory / "faults"
        self.faults.mkdir(parents=True)
        self.nodes, self._gateways = nodes, gateways
        self._port = free_ports(gateways)
        # Ray's socket paths must be short, so this is not in the data directory.
        self._ray_directory = tempfile.mkdtemp(prefix="etcray-c-", dir="/tmp")
        self._host: HostedProcess | None = None
        self._shim = compile_shim(directory)
        self.processes: set[int] = set()
        """Every process of the cluster that was ever seen."""

    @property
    def endpoints(self) -> list[str]:
        return [f"127.0.0.1:{self._port + number}" for number in range(self._gateways)]

    @property
    def has_faulty_disks(self) -> bool:
        return self._shim is not None

    def start(self) -> None:
        """Returns when it serves. Raises SystemFailedError. Ray gives up starting after a fixed time,
        which a busy machine may exceed, so it gets several attempts."""
        for attempt in range(STARTS_MAX):
            try:
                self._start()
                return
            except SystemFailedError:
                self.end()
                if attempt == STARTS_MAX - 1:
                    raise

    def _start(self) -> None:
        environment = {
            FAULTS_VARIABLE: str(self.faults),
            MISTAKE_VARIABLE: self._mistake,
            "ETCRAY_RAY_DIR": self._ray_directory,
            "ETCRAY_RUN_DIR": str(self.directory / "run"),
        }
        if self._shim is not None:
            environment["LD_PRELOAD"] = str(self._shim)
        numbers = [str(self.nodes), str(self._gateways), str(self._port)]
        arguments = [str(self.directory / "data"), *numbers, self._transport]
        log_path = self.directory / "cluster.log"
        self._host = HostedProcess(
            "tests.consistency.cluster_process", arguments, environment, log_path, ROOT
        )
        self._host.hear()

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._host is not None
        return self._host.ask(**command)

    async def status(self) -> dict[str, Any]:
        heard = await asyncio.to_thread(self._ask, do="status")
        status: dict[str, Any] = heard["status"]
        status["ray"] = heard["ray"]
        actors = [*status["members"], *status["gateways"], status["supervisor"]]
        self.processes.update(actor["process_id"] for actor in actors)
        self.processes.update(heard["ray"].values())
        self.processes.discard(0)
        return status

    async def dump(self, member: str, first: int, last: int) -> str:
        """See `cluster_process.dump`."""
        heard = await asyncio.to_thread(
            self._ask, **{"do": "dump", "member": member, "from": first, "to": last}
        )
        digest: str = heard["digest"]
        return digest

    async def change(self, **command: Any) -> dict[str, Any]:
        """A change of the membership, see `cluster_process`. Raises SystemFailedError if it is refused or
        takes too long."""
        return await asyncio.to_thread(self._ask, **command)

    def restart(self) -> None:
        """After its Ray was killed: end what is left, and start it again on what is on disk."""
        self.end()
        self.start()

    def stop(self) -> None:
        """Cleanly if it can be, and in any case."""
        host = self._host
        if host is not None and host.process.poll() is None and not host.end_input(STOP_SECONDS_MAX):
            print("the cluster did not stop by itself", file=sys.stderr)
        self.end()
        shutil.rmtree(self._ray_directory, ignore_errors=True)

    def end(self) -> None:
        """Kill whatever of it is left, by process id, children included."""
        host, self._host = self._host, None
        if host is None:
            return
        session = host.process.pid
        for process_id in {*members_of_session(session), *self.processes}:
            if belongs(process_id, self._ray_directory, str(self.directory), session):
                _signal(process_id, signal.SIGKILL)
        _signal(session, signal.SIGKILL)
        host.close()
        deadline = time.monotonic() + GONE_SECONDS_MAX
        while any(not is_gone(process_id) for process_id in self.processes):
            if time.monotonic() > deadline:
                left = [p for p in self.processes if not is_gone(p)]
                raise SystemFailedError(f"processes {left} do not end")
            time.sleep(0.02)
        self.processes.clear()


def members_of_session(session: int) -> Iterator[int]:
    """Processes that descend from the cluster's process: Ray's own, and Ray's workers as far as they
    stay in its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            process_id = int(entry.name)
            try:
                if os.getsid(process_id) == session:
                    yield process_id
            except ProcessLookupError:
                continue


def belongs(process_id: int, ray_directory: str, directory: str, session: int) -> bool:
    """Whether a process is this cluster's: ids are used again, and nobody else's may be ended."""
    try:
        if os.getsid(process_id) == session:
            return True
        environment = Path(f"/proc/{process_id}/environ").read_bytes()
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False
    return f"ETCRAY_RAY_DIR={ray_directory}\0".encode() in environment


def _signal(process_id: int, number: int) -> bool:
    """False if it is gone already."""
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return False
    return True


def is_gone(process_id: int) -> bool:
    """True once the process has ended, whether or not its parent has noticed."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in ("Z", "X")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first


def compile_shim(directory: Path) -> Path | None:
    """The library that makes disks slow or broken; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = directory / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library
