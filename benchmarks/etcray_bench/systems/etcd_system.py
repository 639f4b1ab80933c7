"""A real etcd. Clients are spread over all of its members, as its own client library does it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from etcray.client import Client, EtcrayError
from etcray_bench.etcd import EtcdCluster
from etcray_bench.processes import private_bytes, use_of
from etcray_bench.results.records import RoleUse
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System, SystemFailedError, answers


class EtcdSystem(System):
    """Raises SystemFailedError if it does not start.

    Its processes are in the group of a shell that waits for the end of its input, and then kills the group:
    so none outlives the laboratory, whatever ends that, and Ctrl-C is not for them."""

    def __init__(self, spec: SystemSpec, directory: Path, binary: Path) -> None:
        super().__init__(spec)
        self._guard = subprocess.Popen(
            ["sh", "-c", "read end; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0
        )
        self._cluster = EtcdCluster(
            directory, members=spec.members, binary=binary, process_group=self._guard.pid
        )
        self._roles: dict[str, list[int]] = {}
        self._killed: int | None = None
        try:
            self._cluster.start()
        except BaseException as error:
            self.stop()
            if isinstance(error, TimeoutError):
                raise SystemFailedError(str(error)) from error
            raise
        self.endpoints = tuple(self._cluster.endpoints)

    def look(self) -> None:
        leader = self._leader()
        processes = self._cluster.process_ids
        self._roles = {
            "leader": [processes[leader]],
            "followers": [process for number, process in enumerate(processes) if number != leader],
        }

    def usage(self) -> Mapping[str, RoleUse]:
        return {role: use_of(processes) for role, processes in self._roles.items()}

    def private_bytes(self) -> Mapping[str, int]:
        return {role: sum(map(private_bytes, processes)) for role, processes in self._roles.items()}

    def member_processes(self) -> Sequence[int]:
        return self._cluster.process_ids

    def _leader(self) -> int:
        """The number of the member that leads, by its own word."""
        for number, endpoint in enumerate(self._cluster.endpoints):
            try:
                with Client(endpoint, timeout=2.0) as client:
                    status = client.status()
            except EtcrayError:
                continue
            if status.leader == status.member_id:
                return number
        raise SystemFailedError("no member of etcd says that it leads")

    def kill_leader(self) -> float:
        number = self._leader()
        at = time.perf_counter()
        self._cluster.signal(number, signal.SIGKILL)
        self._killed = number
        return at

    def begin_healing(self) -> None:
        if self._killed is not None:
            self._cluster.restart(self._killed)
            self._killed = None

    def is_whole(self) -> bool:
        return all(answers(endpoint) for endpoint in self._cluster.endpoints)

    def stop(self) -> None:
        self._cluster.stop()
        assert self._guard.stdin is not None
        if not self._guard.stdin.closed:
            self._guard.stdin.close()
            self._guard.wait()
