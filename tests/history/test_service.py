"""Queries over a history that follows real members: fresh, stale, cancelled, and after damage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray.history.api import QueryReply, QueryRequest
from etcray.history.service import HistoryService
from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError
from tests.history.endless import ENDLESS
from tests.history.local_history import Workload, ask_sql, rows_from, serving_history
from tests.node.local_cluster import LocalCluster, wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("members"), nodes=1) as launched:
        yield launched


@pytest.fixture(scope="module")
def workload(cluster: LocalCluster) -> Workload:
    return Workload(cluster, 21)


@pytest.fixture(scope="module")
def service(
    cluster: LocalCluster, workload: Workload, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HistoryService]:
    workload.run(100, compacts=True)
    with serving_history(cluster, tmp_path_factory.mktemp("served") / "history") as opened:
        yield opened


def test_a_fresh_query_sees_every_write_that_was_answered_before_it(
    service: HistoryService, workload: Workload
) -> None:
    for _ in range(10):
        workload.run(3)
        reply = ask_sql(service, "SELECT max(mod_revision) FROM history")
        assert reply.revision >= workload.model.revision
        assert rows_from(service, "SELECT max(mod_revision) FROM history") == [(workload.model.revision,)]


def test_a_stale_query_names_the_revision_that_it_saw(service: HistoryService, workload: Workload) -> None:
    workload.run(5)
    reply = ask_sql(service, "SELECT coalesce(max(mod_revision), 1) FROM history", stale=True)
    assert reply.stale
    (seen,) = rows_from(service, "SELECT coalesce(max(mod_revision), 1) FROM history WHERE mod_revision <= ?",
                        parameters=[reply.revision])  # fmt: skip
    assert seen[0] <= reply.revision <= workload.model.revision


def test_the_state_at_any_revision_is_what_it_was(service: HistoryService, workload: Workload) -> None:
    workload.run(100)
    for revision in range(2, workload.model.revision + 1, 17):
        found = rows_from(
            service, "SELECT key, value, mod_revision, version, lease FROM kv_at(?) ORDER BY key",
            parameters=[revision],
        )  # fmt: skip
        assert found == [
            (pair.key, pair.value, pair.mod_revision, pair.version, pair.lease)
            for pair in workload.model.pairs_at(revision)
        ]


def test_leases_and_members_are_those_of_the_cluster(service: HistoryService, workload: Workload) -> None:
    leases = dict(rows_from(service, "SELECT id, ttl_seconds FROM leases"))
    assert leases == workload.model.granted
    assert rows_from(service, "SELECT name, is_leader FROM members") == [("m1", True)]


def test_compactions_are_told(service: HistoryService, workload: Workload) -> None:
    workload.compact(workload.model.revision)
    workload.run(1)
    assert rows_from(service, "SELECT max(revision) FROM compactions") == [(workload.model.compacted,)]


def test_a_query_that_runs_is_cancelled_and_others_go_on(service: HistoryService) -> None:
    replies: list[QueryReply] = []

    def endless() -> None:
        replies.append(service.query(QueryRequest(query_id="endless", sql=ENDLESS)))

    thread = threading.Thread(target=endless)
    thread.start()
    wait_for(lambda: service.status().queries or None, "the query")
    assert rows_from(service, "SELECT 1") == [(1,)]
    assert service.cancel("endless")
    thread.join()
    assert replies[0].error_code == "cancelled"
    assert not service.cancel("endless")
    assert rows_from(service, "SELECT 2") == [(2,)]


def test_a_cancellation_that_comes_before_its_query_counts(service: HistoryService) -> None:
    assert not service.cancel("early")
    assert service.query(QueryRequest(query_id="early", sql=ENDLESS)).error_code == "cancelled"


def test_a_query_ends_at_its_time_limit(service: HistoryService) -> None:
    assert ask_sql(service, ENDLESS, timeout_ms=300).error_code == "timeout"


def test_two_queries_of_one_id_do_not_meet(service: HistoryService) -> None:
    thread = threading.Thread(target=service.query, args=(QueryRequest(query_id="twin", sql=ENDLESS),))
    thread.start()
    wait_for(lambda: service.status().queries or None, "the query")
    assert service.query(QueryRequest(query_id="twin", sql="SELECT 1")).error_code == "busy"
    service.cancel("twin")
    thread.join()


def test_two_processes_never_have_one_store(service: HistoryService, cluster: LocalCluster) -> None:
    directory = Path(service._spec.directory)
    with pytest.raises(DataDirectoryInUseError), serving_history(cluster, directory):
        pass


def test_a_directory_that_cannot_be_had_is_an_operating_error(tmp_path: Path, cluster: LocalCluster) -> None:
    (tmp_path / "history").write_text("in the way")
    with pytest.raises(DataDirectoryError), serving_history(cluster, tmp_path / "history"):
        pass


def test_without_a_leader_only_stale_queries_are_answered(tmp_path: Path) -> None:
    with (
        LocalCluster(tmp_path / "members", nodes=3) as cluster,
        serving_history(cluster, tmp_path / "history") as service,
    ):
        workload = Workload(cluster, 22)
        workload.run(20)
        everything = rows_from(service, "SELECT count(*) FROM history")
        for member in list(cluster.board.members)[1:]:
            cluster.stop(member)
        reply = ask_sql(service, "SELECT count(*) FROM history", timeout_ms=700)
        assert reply.error_code == "unavailable"
        assert "leader" in reply.error_message
        assert rows_from(service, "SELECT count(*) FROM history", stale=True) == everything

        replies: list[QueryReply] = []
        request = QueryRequest(query_id="waiting", sql="SELECT 1")
        thread = threading.Thread(target=lambda: replies.append(service.query(request)))
        thread.start()
        wait_for(lambda: service.status().queries or None, "the query")
        service.cancel("waiting")
        thread.join()
        assert replies[0].error_code == "cancelled"


@pytest.mark.parametrize("damage", ["tail", "manifest", "everything"])
def test_a_damaged_store_is_filled_again_from_the_members(tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "history"
    query = (
        "SELECT key, value, mod_revision, sub_revision, op FROM history ORDER BY mod_revision, sub_revision"
    )
    with LocalCluster(tmp_path / "members", nodes=1) as cluster:
        workload = Workload(cluster, 23)
        workload.run(80)
        with serving_history(cluster, directory) as service:
            before = rows_from(service, query)
        for path in directory.rglob("*"):
            hit = {"tail": "tail" in path.name, "manifest": path.name == "manifest.json", "everything": True}
            if path.is_file() and path.name != "LOCK" and hit[damage]:
                path.chmod(0o600)
                path.write_bytes(b"\xff" * max(100, path.stat().st_size // 2))
        with serving_history(cluster, directory) as service:
            assert service.status().damage
            assert rows_from(service, query) == before


def test_the_status_tells_how_far_it_is(
    service: HistoryService, cluster: LocalCluster, workload: Workload
) -> None:
    workload.run(5)
    rows_from(service, "SELECT 1")
    status = service.status()
    assert status.revision == workload.model.revision
    assert (status.is_following, status.problem, status.source) == (True, "", cluster.spec.members[0].id)
    assert status.rows == len(workload.changes)
    assert status.size_bytes > 0
    assert status.query_count > 0


def test_writers_and_readers_at_once_never_see_less_than_they_wrote(tmp_path: Path) -> None:
    with (
        LocalCluster(tmp_path / "members", nodes=3) as cluster,
        serving_history(cluster, tmp_path / "history") as service,
    ):
        workload = Workload(cluster, 24)
        seen: list[tuple[int, int]] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                written = workload.model.revision
                seen.append((written, ask_sql(service, "SELECT 1").revision))

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            workload.run(2, compacts=True)
        done.set()
        for reader in readers:
            reader.join()
        assert len(seen) >= 2
        assert all(answered >= written for written, answered in seen)
