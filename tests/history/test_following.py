"""A store that follows real members holds what happened, whatever happens to members and store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from etcray_storage.history.store import HistoryStore
from tests.history.local_history import Row, Workload, catch_up, following, model_rows
from tests.node.local_cluster import LocalCluster, wait_for


def rows_in(store: HistoryStore) -> list[Row]:
    """All rows of the tail: these histories are too small for parts."""
    snapshot = store.snapshot()
    try:
        assert not snapshot.names, "the test wrote too much"
        return [row for table in snapshot.tail for row in model_rows(table)]
    finally:
        snapshot.release()


def rows_behind(store: HistoryStore) -> list[Row]:
    """The rows of the tail, whatever is in parts."""
    snapshot = store.snapshot()
    try:
        return [row for table in snapshot.tail for row in model_rows(table)]
    finally:
        snapshot.release()


@pytest.mark.parametrize("seed", range(2))
def test_it_holds_every_change_over_leader_changes_and_restarts(tmp_path: Path, seed: int) -> None:
    with LocalCluster(tmp_path / "members") as cluster:
        workload = Workload(cluster, seed)
        with following(cluster, tmp_path / "history") as (store, thread):
            for _ in range(3):
                workload.run(60, compacts=True)
                leader = cluster.leader().spec.id
                cluster.stop(leader)
                workload.run(40, compacts=True)
                cluster.start(leader)
            catch_up(cluster, thread)
            assert rows_in(store) == workload.changes


def test_it_goes_on_where_it_was_after_its_own_restart(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "members", nodes=1) as cluster:
        workload = Workload(cluster, 3)
        for _ in range(3):
            workload.run(50, compacts=True)
            with following(cluster, tmp_path / "history") as (store, thread):
                workload.run(30)
                catch_up(cluster, thread)
                assert rows_in(store) == workload.changes
                assert store.status().gaps == []


def test_a_member_that_is_cut_off_is_left_for_another(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "members") as cluster:
        workload = Workload(cluster, 4)
        with following(cluster, tmp_path / "history") as (store, thread):
            workload.run(30)
            catch_up(cluster, thread)
            cluster.isolate(thread.source)
            workload.run(60)
            catch_up(cluster, thread)
            assert rows_in(store) == workload.changes
            cluster.heal()


def test_what_is_compacted_behind_its_back_begins_anew_behind_a_gap(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "members", nodes=1) as cluster:
        workload = Workload(cluster, 5)
        workload.run(60)
        with following(cluster, tmp_path / "history") as (store, thread):
            held = catch_up(cluster, thread)
        workload.run(150)
        compacted = workload.model.revision - 10
        workload.compact(compacted)
        opened = cluster.leader()._require_open()
        opened.flush()
        opened.tables.maintain(force=True)
        workload.run(40)
        with following(cluster, tmp_path / "history") as (store, thread):
            catch_up(cluster, thread)
            (gap,) = store.status().gaps
            assert (gap.first, gap.last) == (held + 1, compacted - 1)
            assert rows_behind(store) == [row for row in workload.changes if row[0] > compacted]
            snapshot = store.snapshot()
            assert [noted.revision for noted in snapshot.compactions] == [compacted]
            snapshot.release()


def test_a_member_that_was_brought_back_by_a_snapshot_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path / "members") as cluster:
        workload = Workload(cluster, 6)
        workload.run(30)
        lagging = next(m for m in cluster.board.members if m != cluster.leader().spec.id)
        with following(cluster, tmp_path / "history") as (store, thread):
            thread.set_members([lagging])
            catch_up(cluster, thread)
            cluster.isolate(lagging)
            workload.run(200, compacts=True)
            wait_for(lambda: cluster.leader()._require_open().log.base_index > 20 or None, "a trimmed log")
            cluster.heal()
            catch_up(cluster, thread)
            held = store.status()
            # A snapshot may still hold rows that a compaction allows to go, and there may have been several.
            complete_from = held.gaps[-1].last + 1 if held.gaps else 1
            assert complete_from <= workload.model.compacted
            newer = [row for row in rows_behind(store) if row[0] > complete_from]
            assert newer == [row for row in workload.changes if row[0] > complete_from]


def test_who_waits_for_a_revision_does_not_wait_for_the_pace(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "members", nodes=1) as cluster:
        workload = Workload(cluster, 8)
        with following(cluster, tmp_path / "history") as (_, thread):
            for _ in range(20):
                workload.run(1)
                revision = workload.model.revision
                assert thread.wait_for(revision, time.monotonic() + 30, lambda: False)
                assert thread.position >= revision


def test_a_wait_ends_when_it_is_cancelled_late_or_the_history_closes(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "members", nodes=1) as cluster:
        Workload(cluster, 9).run(5)
        cancelled = threading.Event()
        ends: list[bool] = []
        with following(cluster, tmp_path / "history") as (_, thread):
            assert not thread.wait_for(1_000_000, time.monotonic() + 0.05, lambda: False)

            def wait(is_cancelled: threading.Event) -> None:
                ends.append(thread.wait_for(1_000_000, time.monotonic() + 60, is_cancelled.is_set))

            first = threading.Thread(target=wait, args=(cancelled,))
            second = threading.Thread(target=wait, args=(threading.Event(),))
            first.start()
            second.start()
            cancelled.set()
            thread.wake()
            first.join()
            assert ends == [False]
        second.join()
        assert ends == [False, False]
