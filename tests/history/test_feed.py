"""What members hand out to a copy of all revisions is what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcray.node import api
from etcray_storage.types import MemberId
from tests.history.local_history import Workload, fetch_all, rows_of
from tests.node.local_cluster import LocalCluster


@pytest.mark.parametrize("seed", range(3))
def test_every_member_hands_out_every_change_in_order(tmp_path: Path, seed: int) -> None:
    with LocalCluster(tmp_path) as cluster:
        workload = Workload(cluster, seed)
        workload.run(400, compacts=True)
        cluster.wait_until_equal()
        for member in cluster.board.members.values():
            assert fetch_all(member, 1) == workload.changes


@pytest.mark.parametrize("where", ["in memory", "on disk", "after a restart"])
def test_pieces_end_with_whole_revisions_wherever_the_rows_are(tmp_path: Path, where: str) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        workload = Workload(cluster, 11)
        workload.run(150)
        (member,) = cluster.board.members.values()
        if where != "in memory":
            member._require_open().flush()
        if where == "after a restart":
            cluster.stop(member.spec.id)
            cluster.start(member.spec.id)
            member = cluster.leader()
        for after in (1, 2, 77, workload.model.revision - 1):
            wanted = [row for row in workload.changes if row[0] > after]
            assert fetch_all(member, after, bytes_max=1) == wanted
            assert fetch_all(member, after, bytes_max=700) == wanted


def test_a_compaction_takes_nothing_from_a_copy_until_the_tables_are_rewritten(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        workload = Workload(cluster, 5)
        workload.run(100)
        workload.compact(workload.model.revision)
        member = cluster.leader()
        before = ask(member.spec.id, cluster, after=1)
        assert (before.complete_from, before.compact_revision) == (1, workload.model.compacted)
        assert fetch_all(member, 1) == workload.changes
        opened = member._require_open()
        opened.flush()
        opened.tables.maintain(force=True)
        after = ask(member.spec.id, cluster, after=1)
        assert after.complete_from == workload.model.compacted
        workload.run(50)
        assert fetch_all(member, workload.model.compacted - 1) == [
            row for row in workload.changes if row[0] >= workload.model.compacted
        ]


def test_a_base_is_what_a_compaction_leaves_before_and_after_the_rewrite(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        workload = Workload(cluster, 6)
        workload.run(150)
        compacted = workload.model.revision - 20
        workload.compact(compacted)
        workload.run(30)
        member = cluster.leader()
        opened = member._require_open()
        opened.flush()
        wanted = sorted(
            {
                (pair.mod_revision, pair.key, pair.value, pair.lease)
                for pair in workload.model.pairs_at(compacted)
            }
            | {row for row in workload.changes if row[0] == compacted}
        )
        assert sorted(base_of(member.spec.id, cluster, compacted)) == wanted
        opened.tables.maintain(force=True)
        assert sorted(base_of(member.spec.id, cluster, compacted)) == wanted
        workload.compact(compacted + 5)
        opened.flush()
        opened.tables.maintain(force=True)
        assert ask(member.spec.id, cluster, after=0, base=compacted).complete_from == compacted + 5


def test_a_member_behind_the_copy_sends_it_elsewhere(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        Workload(cluster, 7).run(20)
        member = cluster.leader()
        revision = member.status().revision
        assert ask(member.spec.id, cluster, after=revision + 1).outcome is api.Outcome.NOT_LEADER
        assert ask(member.spec.id, cluster, after=revision).through_revision == revision


def ask(member: MemberId, cluster: LocalCluster, *, after: int, base: int = 0) -> api.HistoryRowsReply:
    request = api.HistoryRowsRequest(after, 1 << 20, 0.0, base)
    return cluster.board.members[member].history_rows(api.encode(request))


def base_of(
    member: MemberId, cluster: LocalCluster, revision: int
) -> list[tuple[int, bytes, bytes | None, int]]:
    rows, through = [], 0
    while through < revision:
        request = api.HistoryRowsRequest(through, 200, 0.0, revision)
        reply = cluster.board.members[member].history_rows(api.encode(request))
        assert reply.outcome is api.Outcome.ANSWERED
        assert reply.complete_from <= revision
        rows += rows_of(reply.rows)
        through = reply.through_revision
    return rows
