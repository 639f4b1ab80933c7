"""The two systems of the comparison behind one face: endpoints, processes, the length of the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Protocol

from etcray.client import Client
from etcray_bench.etcd import EtcdCluster, free_ports
from etcray_bench.processes import Groups

UP_SECONDS_MAX: Final = 120.0


class System(Protocol):
    """A running three-member cluster."""

    name: str
    endpoints: list[str]

    def process_groups(self) -> Groups:
        """Who does what now: roles may have changed since the last load."""

    def stop(self) -> None: ...


def raft_index(system: System) -> int:
    """How many entries the log has had; the difference over a load counts its batches."""
    with Client(system.endpoints) as client:
        return client.status().raft_index


class Etcd:
    """A real etcd; its clients are spread over all members, as its own client library does it."""

    name = "etcd"

    def __init__(self, directory: Path, binary: Path) -> None:
        self._cluster = EtcdCluster(directory, binary=binary)
        self._cluster.start()
        self.endpoints = self._cluster.endpoints

    def process_groups(self) -> Groups:
        groups: dict[str, list[int]] = {"leader": [], "followers": []}
        for endpoint, process_id in zip(self.endpoints, self._cluster.process_ids, strict=True):
            with Client(endpoint) as client:
                status = client.status()
            groups["leader" if status.leader == status.member_id else "followers"].append(process_id)
        return groups

    def stop(self) -> None:
        self._cluster.stop()


class Etcray:
    """An etcray started by its own command, on a Ray of its own."""

    name = "etcray"

    def __init__(self, directory: Path, *, gateways: int = 1) -> None:
        self._cluster = f"versus-etcd-{os.getpid()}"
        (port,) = free_ports(1)
        self._run(
            "up",
            "--nodes",
            "3",
            "--gateways",
            str(gateways),
            "--listen",
            f"127.0.0.1:{port}",
            "--data-dir",
            str(directory),
            "--name",
            self._cluster,
            "--detach",
        )
        try:
            self.endpoints = [str(gateway["endpoint"]) for gateway in self._status()["gateways"]]
        except BaseException:
            self.stop()
            raise

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "etcray.cli", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"etcray {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _status(self) -> dict[str, list[dict[str, str | int]]]:
        """Waits until the cluster is ready."""
        deadline = time.monotonic() + UP_SECONDS_MAX
        while True:
            status = json.loads(self._run("status", "--name", self._cluster, "--json"))
            if status["ready"]:
                return {"members": status["members"], "gateways": status["gateways"]}
            if time.monotonic() > deadline:
                raise TimeoutError(f"etcray is not ready: {status}")
            time.sleep(0.5)

    def history(self) -> dict[str, Any]:
        """What the status says of the history, ready or not."""
        status = json.loads(self._run("status", "--name", self._cluster, "--json"))
        found: dict[str, Any] = status["history"]
        return found

    def process_groups(self) -> Groups:
        groups: dict[str, list[int]] = {"gateway": [], "leader": [], "followers": []}
        status = self._status()
        for gateway in status["gateways"]:
            groups["gateway"].append(int(gateway["process_id"]))
        for member in status["members"]:
            group = "leader" if member["role"] == "leader" else "followers"
            groups[group].append(int(member["process_id"]))
        return groups

    def stop(self) -> None:
        self._run("down", "--name", self._cluster)
