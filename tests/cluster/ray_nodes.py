"""A Ray of several nodes on this machine, each with a name, so that they pass for machines of their own.

As a program it starts them, says where they are, and waits: whoever started it kills what is to die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from etcray.processes import descendants, wait_until_gone

FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_AUTH_MODE": "disabled",
}
"""Ray's defaults take 15 s and more to believe that a node is gone."""


class RayNodes:
    """The program, seen from the test. Nothing here is connected to that Ray."""

    def __init__(self, *names: str) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.ray_nodes", *names],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **FAST_HEALTH_CHECKS},
        )
        assert self._program.stdout is not None
        told = ""
        while not told.startswith("{"):
            told = self._program.stdout.readline()
            assert told, "the nodes did not start"
        content: dict[str, Any] = json.loads(told)
        self.address: str = content["address"]
        self._raylets: list[int] = content["raylets"]

    def kill_node_of(self, process_id: int) -> None:
        """The node where that process runs, and all that runs on it, as if its machine had lost power."""
        (raylet,) = [raylet for raylet in self._raylets if process_id in descendants(raylet)]
        kill_all(raylet)

    def kill_everything(self) -> None:
        """With the head. Idempotent."""
        if self._program.poll() is None:
            kill_all(self._program.pid)
            self._program.wait()
            assert self._program.stdout is not None
            self._program.stdout.close()


def kill_all(process_id: int) -> None:
    """A process and all below it, before any of them can react."""
    processes = [process_id, *descendants(process_id)]
    for stop in (signal.SIGSTOP, signal.SIGKILL):
        for each in processes:
            if os.path.exists(f"/proc/{each}"):
                os.kill(each, stop)
    wait_until_gone(processes, 10.0)


def main() -> None:
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    raylets: list[int] = []
    for name in sys.argv[1:]:
        node = nodes.add_node(
            num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1", node_name=name
        )
        raylets.append(node.all_processes["raylet"][0].process.pid)
    print(json.dumps({"address": nodes.address, "raylets": raylets}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
