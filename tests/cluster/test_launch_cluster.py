"""Real clusters on a real Ray: members and the supervisor are killed, clusters stop and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etcray import Cluster
from etcray.client import Client
from etcray.processes import process_lives, wait_until_gone
from etcray.status import ClusterStatus

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def own_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCRAY_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def eventually(cluster: Cluster, is_true: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        status = cluster.status()
        if is_true(status):
            return status
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {status}"
        time.sleep(0.05)


def all_processes(status: ClusterStatus) -> list[int]:
    actors = [actor.process_id for actor in (*status.members, *status.gateways)]
    return [*actors, status.supervisor.process_id]


def test_a_cluster_heals_and_comes_back_with_what_it_had(tmp_path: Path) -> None:
    with Cluster.launch(data_dir=str(tmp_path / "data"), listen="127.0.0.1:0", name="healing") as cluster:
        with cluster.client(timeout=20) as kv:
            kv.put("/color", "green")
        before = eventually(cluster, lambda s: all(m.phase == "serving" for m in s.members))

        leader = next(member for member in before.members if member.id == before.leader)
        os.kill(leader.process_id, signal.SIGKILL)
        after = eventually(
            cluster,
            lambda s: (
                s.ready and any(m.name == leader.name and m.restarts == 1 and m.ready for m in s.members)
            ),
        )
        assert leader.process_id not in all_processes(after)
        with cluster.client(timeout=20) as kv:
            kv.put("/shape", "round")

        os.kill(before.supervisor.process_id, signal.SIGKILL)
        found = eventually(
            cluster, lambda s: s.ready and s.supervisor.process_id != before.supervisor.process_id
        )
        assert [m.process_id for m in found.members] == [m.process_id for m in after.members]
        last = all_processes(found)
    assert wait_until_gone(last, 5.0) == []

    with Cluster.launch(data_dir=str(tmp_path / "data"), listen="127.0.0.1:0", name="healing") as cluster:
        with cluster.client(timeout=20) as kv:
            values = [kv.get(key) for key in ("/color", "/shape")]
        assert [value.text for value in values if value is not None] == ["green", "round"]
        assert cluster.status().cluster_id == before.cluster_id


def start_up(tmp_path: Path, name: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """`etcray up --json` as a shell would start it, and what it says when it is ready."""
    command = [sys.executable, "-m", "etcray.cli", "up", "--json", "--nodes", "1", "--name", name]
    command += ["--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"`etcray up` of {name} ended with {process.wait()}"
    return process, json.loads(line)


def test_two_clusters_live_side_by_side_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    names = ("left", "right")
    running = {}
    try:
        for name in names:
            running[name] = start_up(tmp_path, name)
        for name, (_, status) in running.items():
            with Client(status["endpoints"], timeout=20) as kv:
                kv.put("who", name)
        for name, (process, status) in running.items():
            with Client(status["endpoints"], timeout=20) as kv:
                pair = kv.get("who")
            assert pair is not None
            assert pair.text == name
            actors = (*status["members"], *status["gateways"], status["history"])
            processes = [actor["process_id"] for actor in actors if actor["process_id"]]
            assert all(process_lives(process_id) for process_id in processes)
            # As a terminal does it: to everybody in the foreground.
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0
            assert wait_until_gone([*processes, status["supervisor"]["process_id"]], 5.0) == []
            session_processes = subprocess.run(
                ["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False
            )
            assert session_processes.stdout.split() == []
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait(PATIENCE_SECONDS)
            if process.stdout is not None:
                process.stdout.close()
    assert not list((tmp_path / "run").glob("*.json"))
