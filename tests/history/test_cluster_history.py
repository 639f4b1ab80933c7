"""The history of a real cluster on Ray: killed, lost, switched off, and what others notice of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from etcray import Client, Cluster
from etcray.client.errors import UnavailableError
from etcray.launch import LaunchOptions
from etcray.status import HistoryReport
from etcray.tuning import Transport

pytestmark = pytest.mark.cluster

EVERYTHING = """SELECT key, value, mod_revision, sub_revision, create_revision, version, lease, op,
    committed_at FROM history WHERE mod_revision <= ? ORDER BY mod_revision, sub_revision"""


@contextmanager
def launched(directory: Path, **options: Any) -> Iterator[Cluster]:
    with Cluster.launch(name="history", data_dir=str(directory), listen="127.0.0.1:0", **options) as cluster:
        yield cluster


def report_of(cluster: Cluster) -> HistoryReport:
    report = cluster.status().history
    assert report is not None
    return report


def until(condition: Any, what: str) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited a minute for {what}")


def kill(process_id: int) -> None:
    os.kill(process_id, signal.SIGKILL)


def answers(client: Client, revision: int) -> list[tuple[Any, ...]]:
    """What is asked before and after; while history comes back, the client tries again."""
    rows = client.sql(EVERYTHING, [revision]).fetchall()
    return rows + client.sql("SELECT * FROM kv_at(?) ORDER BY key", [revision]).fetchall()


def write_some(client: Client, count: int) -> None:
    lease = client.lease(600)
    for number in range(count):
        client.put(f"/jobs/{number % 9}", f"state {number}", lease=lease.id if number % 5 == 0 else 0)
        if number % 7 == 0:
            client.delete(f"/jobs/{(number + 3) % 9}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history-cluster")


@pytest.mark.parametrize("transport", list(Transport))
def test_the_same_answers_after_every_kind_of_death(directory: Path, transport: Transport) -> None:
    """In one test, because a cluster takes seconds to start."""
    directory = directory / transport
    with (
        launched(directory, nodes=3, transport=transport) as cluster,
        Client(list(cluster.endpoints), timeout=60.0) as client,
    ):
        write_some(client, 60)
        revision = client.put("/last", "one").revision
        before = answers(client, revision)
        assert len(before) > 60

        a_killed_history_comes_back_and_the_cluster_does_not_notice(cluster, client)
        assert answers(client, revision) == before

        member = next(m for m in cluster.status().members if m.id == cluster.status().leader)
        kill(member.process_id)
        assert answers(client, revision) == before
        until(lambda: all(m.phase == "serving" for m in cluster.status().members), "the member")

        client.put("/more", "1")
        assert client.sql("SELECT value_text FROM history WHERE key_text = '/more'").fetchall() == [("1",)]
        status = cluster.status()
        for actor in (*status.members, *status.gateways, report_of(cluster)):
            kill(actor.process_id)
        until(lambda: cluster.status().ready and report_of(cluster).phase == "serving", "everything")
        assert answers(client, revision) == before

    with launched(directory) as cluster, Client(list(cluster.endpoints), timeout=60.0) as client:
        assert answers(client, revision) == before
        a_lost_directory_is_filled_again(directory, cluster, client)


def a_killed_history_comes_back_and_the_cluster_does_not_notice(cluster: Cluster, client: Client) -> None:
    report = report_of(cluster)
    problems: list[Exception] = []
    stopped = threading.Event()

    def write() -> None:
        with Client(list(cluster.endpoints)) as writer:
            while not stopped.is_set():
                try:
                    writer.put("/beside", "x")
                    writer.delete("/beside")
                except Exception as error:
                    problems.append(error)

    revision = client.put("/probe", "x").revision
    writer = threading.Thread(target=write)
    writer.start()
    kill(report.process_id)
    until(lambda: report_of(cluster).process_id not in (0, report.process_id), "another process")
    stopped.set()
    writer.join()
    assert not problems
    assert report_of(cluster).restarts == 1
    assert client.sql("SELECT 1").revision > revision


def a_lost_directory_is_filled_again(directory: Path, cluster: Cluster, client: Client) -> None:
    before = client.sql("SELECT * FROM kv ORDER BY key").fetchall()
    report = report_of(cluster)
    history = Path(report.directory)
    assert history == directory / "history" / "history"
    kill(report.process_id)
    for path in history.rglob("*"):
        if path.is_file() and path.name != "LOCK":
            path.unlink(missing_ok=True)
    assert client.sql("SELECT * FROM kv ORDER BY key").fetchall() == before


def test_a_cluster_without_history_says_so_and_keeps_what_it_had(directory: Path) -> None:
    directory = directory / Transport.RAY
    with launched(directory, history=False) as cluster:
        assert cluster.status().history is None
        assert (directory / "history" / "history").is_dir()
        connection = http.client.HTTPConnection(cluster.endpoints[0], timeout=10)
        connection.request("POST", "/sql", json.dumps({"query": "SELECT 1"}))
        response = connection.getresponse()
        assert response.status == 501
        assert "without history" in json.loads(response.read())["message"]
        connection.close()
        with cluster.client() as client:
            client.put("/jobs/1", "written without history")
    with launched(directory) as cluster:
        found = cluster.sql("SELECT value_text FROM kv WHERE key_text = '/jobs/1'")
        assert found.fetchall() == [("written without history",)]
        # The supervisor's report is half a second old: it may be of a history that nobody has asked yet.
        until(lambda: report_of(cluster).revision >= found.revision, "a report of the same")
        assert report_of(cluster).revision == found.revision


def test_a_directory_that_cannot_be_used_stops_only_the_history(tmp_path: Path) -> None:
    target = tmp_path / "history" / "history"
    target.parent.mkdir(mode=0o700)
    with launched_with(tmp_path, target) as cluster:
        until(lambda: report_of(cluster).phase == "refused", "the refusal")
        assert "history" in report_of(cluster).problem
        with cluster.client() as client:
            client.put("a", "b")
            with pytest.raises(UnavailableError):
                client.sql("SELECT 1")


@contextmanager
def launched_with(directory: Path, target: Path) -> Iterator[Cluster]:
    """A file is where history's directory should be."""
    target.write_text("in the way")
    options = LaunchOptions(name="history", nodes=1, data_dir=str(directory), listen="127.0.0.1:0")
    cluster = Cluster.launch_with(options)
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.stop()
