"""Snapshots and compaction: paper section 7 (R20, R21)."""

from __future__ import annotations

import pytest

from etcray.raft.messages import InstallSnapshotRequest
from etcray.raft.progress import ProgressState
from etcray_storage.types import Index, MemberId, SnapshotMeta, Term

from .build import acked, answers, append, cluster_with_logs, entry, terms_of
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster, Member


def _install(cluster: Cluster, index: int, term: int, *, leader_term: int = 3) -> InstallSnapshotRequest:
    meta = SnapshotMeta(Index(index), Term(term), cluster.membership)
    return InstallSnapshotRequest(MemberId(2), MemberId(1), Term(leader_term), meta)


def _with_lagging_member() -> tuple[Cluster, Member]:
    """1 leads and has compacted everything; 3 was away."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.crash(3)
    for data in (b"a", b"b", b"c"):
        cluster.propose(1, data)
    cluster.settle()
    leader.flush(Index(4))
    leader.compact(Index(4))
    cluster.restart(3)
    cluster.wait(2 * HEARTBEAT_S)
    return cluster, leader


def test_leader_asks_for_a_snapshot_once() -> None:
    """7: the leader sends a snapshot if it has discarded the next entry that the follower needs."""
    cluster, leader = _with_lagging_member()
    assert [wanted.member for wanted in leader.snapshots_wanted] == [3]
    assert leader.raft.status().peers[1].state is ProgressState.SNAPSHOT
    cluster.wait(3 * HEARTBEAT_S)
    assert len(leader.snapshots_wanted) == 1


def test_peer_follows_the_log_again_after_its_snapshot() -> None:
    cluster, leader = _with_lagging_member()
    cluster.transfer_snapshot(1)
    cluster.propose(1, b"d")
    cluster.settle()
    cluster.wait(2 * HEARTBEAT_S)
    assert leader.raft.status().peers[1].state is ProgressState.REPLICATE
    assert cluster[3].raft.status().applied == 5
    assert [e.data for e in cluster[3].applied] == [b"d"]


def test_failed_transfer_is_asked_for_again_after_a_pause() -> None:
    cluster, leader = _with_lagging_member()
    cluster.transfer_snapshot(1, ok=False)
    assert leader.snapshots_wanted == []
    cluster.wait(2 * HEARTBEAT_S)
    assert len(leader.snapshots_wanted) == 1


def test_silent_transfer_is_asked_for_again_after_its_time() -> None:
    cluster, leader = _with_lagging_member()
    leader.snapshots_wanted.clear()
    assert leader.raft.state.leading is not None
    leader.raft.state.leading.progress[MemberId(3)].snapshot_deadline = cluster.now + 1.0
    cluster.wait(1.5)
    assert len(leader.snapshots_wanted) == 1


def test_peer_that_is_still_installing_is_not_sent_a_second_snapshot() -> None:
    """It acknowledges heartbeats with what it had before; that does not tell where its log ends."""
    cluster, leader = _with_lagging_member()
    cluster[3].stalled = True
    cluster.transfer_snapshot(1)
    cluster.wait(5 * HEARTBEAT_S)
    assert leader.snapshots_wanted == []
    cluster[3].stalled = False
    cluster.wait(2 * HEARTBEAT_S)
    assert (leader.snapshots_wanted, cluster[3].raft.status().applied) == ([], 4)


def test_late_report_of_a_transfer_is_ignored() -> None:
    cluster, leader = _with_lagging_member()
    cluster.transfer_snapshot(1)
    cluster.settle()
    before = leader.raft.status()
    leader.raft.snapshot_sent(MemberId(3), Index(4), False, cluster.now)
    assert leader.raft.status() == before


def test_lost_appends_of_compacted_entries_end_in_a_snapshot() -> None:
    """The window was full of entries that were lost, then compacted: no answer would ever come."""
    cluster = Cluster(appends_in_flight_max=1)
    leader = cluster.elect(1)
    cluster.cut(1, 3)
    for data in (b"a", b"b", b"c"):
        cluster.propose(1, data)
    cluster.settle()
    leader.flush(Index(4))
    leader.compact(Index(4))
    cluster.cuts.clear()
    cluster.wait(2 * HEARTBEAT_S)
    assert [wanted.member for wanted in leader.snapshots_wanted] == [3]


def test_snapshot_replaces_a_conflicting_log() -> None:
    """7: the follower discards its entire log; it is all superseded by the snapshot."""
    cluster = cluster_with_logs({1: [1, 2, 2]}, term=3)
    cluster.arrive(_install(cluster, 5, 3))
    assert cluster[1].raft.status().last_index == 3
    cluster.sync()
    status = cluster[1].raft.status()
    assert (status.first_index, status.last_index, status.commit, status.applied) == (6, 5, 5, 5)
    assert cluster.take() == [acked(3, 5, commit=5)]


def test_snapshot_of_a_prefix_keeps_the_entries_after_it() -> None:
    """7: entries that follow the snapshot are still valid and must be retained."""
    cluster = cluster_with_logs({1: [1, 1, 1]}, term=3)
    assert answers(cluster, _install(cluster, 2, 1)) == [acked(3, 2, commit=2)]
    assert terms_of(cluster[1]) == [1, 1, 1]
    assert cluster[1].raft.status().commit == 2


def test_snapshot_behind_the_commit_changes_nothing() -> None:
    """R21: a delayed or repeated InstallSnapshot."""
    cluster = cluster_with_logs({1: [1, 1, 1]}, term=3, commit=3)
    assert answers(cluster, _install(cluster, 2, 1)) == [acked(3, 3, commit=3)]
    assert terms_of(cluster[1]) == [1, 1, 1]


def test_second_snapshot_waits_for_the_first() -> None:
    """R21: two snapshots shortly after another."""
    cluster = cluster_with_logs({1: [1]}, term=3)
    cluster.arrive(_install(cluster, 5, 3))
    cluster.arrive(_install(cluster, 7, 3))
    cluster.sync()
    assert cluster[1].raft.status().applied == 5


def test_log_does_not_grow_while_a_snapshot_is_installed() -> None:
    """R20: old state or new state, never a mixture."""
    cluster = cluster_with_logs({1: [1]}, term=3, commit=1)
    cluster[1].perform()
    cluster.arrive(_install(cluster, 5, 3))
    cluster.arrive(append(3, (1, 1), [entry(2, 3)], commit=2))
    assert cluster.take() == [acked(3, 1, commit=1)]
    assert cluster[1].raft.status().last_index == 1
    cluster.now += 5 * ELECTION_S
    cluster.tick(1)
    assert cluster[1].raft.status().role == "follower"
    cluster.sync()
    assert cluster[1].raft.status().applied == 5


@pytest.mark.parametrize("writes_done", [0, 1])
def test_crash_during_install_leaves_the_old_or_the_new_state(writes_done: int) -> None:
    """R20: the record beside the snapshot and the snapshot are one write."""
    cluster = cluster_with_logs({1: [1]}, term=2, commit=1)
    cluster[1].perform()
    cluster.arrive(_install(cluster, 5, 3))
    cluster.crash(1, writes_done)
    cluster.restart(1)
    status = cluster[1].raft.status()
    assert (status.term, status.applied) == ((2, 1) if writes_done == 0 else (3, 5))


def test_entries_that_were_appended_before_the_snapshot_are_written_first() -> None:
    """Readies never hold entries and a snapshot together."""
    cluster = cluster_with_logs({1: [1]}, term=3)
    member = cluster[1]
    member.raft.step(append(3, (1, 1), [entry(2, 3)]), cluster.now)
    member.raft.step(_install(cluster, 5, 3), cluster.now)
    member.perform()
    records = [ready.record for ready in member.readies]
    assert [bool(record and record.entries) for record in records] == [True, False]
    assert [ready.snapshot is not None for ready in member.readies] == [False, True]
    cluster.sync()
    assert member.raft.status().applied == 5


def test_compaction_keeps_the_term_before_the_first_entry() -> None:
    """7: the last included index and term support the consistency check of the first entry."""
    cluster = cluster_with_logs({1: [1, 1, 2]}, term=3, commit=3)
    cluster[1].perform()
    cluster[1].flush(Index(3))
    cluster[1].compact(Index(3))
    assert answers(cluster, append(3, (3, 2), [entry(4, 3)])) == [acked(3, 4, commit=3)]
    assert cluster[1].raft.status().first_index == 4


def test_compaction_beyond_the_applied_index_is_a_bug() -> None:
    cluster = cluster_with_logs({1: [1, 1, 2]}, term=3)
    with pytest.raises(AssertionError, match="applied 0"):
        cluster[1].raft.log_compacted_to(Index(2))
