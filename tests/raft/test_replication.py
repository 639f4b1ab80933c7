"""Log replication, rule by rule: paper 5.3, 5.4.2."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from etcray.raft.errors import NotLeaderError, ProposalDroppedError
from etcray.raft.messages import AppendRequest, AppendResponse
from etcray.raft.progress import ProgressState
from etcray.raft.ready import Role
from etcray_storage.types import Index, Term

from .build import (
    ack,
    acked,
    answers,
    append,
    cluster_with_logs,
    entries,
    entry,
    reject,
    rejected,
    terms_of,
    vote,
)
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster


def test_leader_opens_its_term_with_a_no_op() -> None:
    """8: each leader commits a blank no-op entry at the start of its term."""
    cluster = cluster_with_logs({1: [1, 1], 2: [1, 1], 3: [1, 1]})
    cluster.elect(1)
    assert terms_of(cluster[1]) == [1, 1, 2]
    assert cluster[1].applied[-1] == entry(3, 2, b"")


def test_leader_sends_entries_to_all_at_once() -> None:
    """5.3: the leader appends the command and issues AppendEntries in parallel to each server."""
    cluster = Cluster()
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    expected = entry(index, leader.raft.state.term, b"a")
    assert [m.entries for m in cluster.network if isinstance(m, AppendRequest)] == [(expected,), (expected,)]


def test_proposals_between_two_readies_share_one_message() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    for data in (b"a", b"b", b"c"):
        leader.raft.propose(data, cluster.now)
    leader.perform()
    assert [len(m.entries) for m in cluster.network if isinstance(m, AppendRequest)] == [3, 3]


def test_only_the_leader_takes_proposals() -> None:
    """8: a follower rejects the request and says who leads (R23)."""
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(NotLeaderError) as caught:
        cluster.propose(2, b"a")
    assert caught.value.leader == 1


def test_uncommitted_proposals_are_limited() -> None:
    """R23: a proposal is refused loudly, never dropped silently."""
    cluster = Cluster(uncommitted_bytes_max=10)
    cluster.elect(1)
    cluster.propose(1, b"12345678")
    with pytest.raises(ProposalDroppedError):
        cluster.propose(1, b"123")
    cluster.settle()
    cluster.propose(1, b"1234567890123")


@pytest.mark.parametrize(
    ("durable", "committed"), [([1], False), ([1, 2], True), ([2, 3], True), ([2], False)]
)
def test_entry_is_committed_once_durable_on_a_majority(durable: list[int], committed: bool) -> None:
    """5.3, thesis 10.2.1: a leader counts itself only when its own disk has the entry (R4, R22)."""
    cluster = Cluster()
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.deliver()
    for member in durable:
        cluster[member].sync(cluster.now)
    cluster.deliver()
    assert (leader.raft.status().commit == index) is committed
    assert (leader.raft.status().applied == index) is (committed and 1 in durable)


def test_single_voter_commits_only_what_is_durable() -> None:
    """R22: a crash between apply and sync would lose an acknowledged write."""
    cluster = Cluster([1])
    cluster.tick(1)
    cluster.settle()
    index = cluster.propose(1, b"a")
    assert cluster[1].raft.status().commit < index
    cluster.sync()
    assert cluster[1].raft.status().applied == index


def test_older_terms_are_not_committed_by_counting() -> None:
    """5.4.2: only entries of the leader's current term are committed by counting replicas (R5)."""
    cluster = cluster_with_logs({1: [1, 2], 2: [1, 2], 3: [1]}, term=2)
    cluster.now += 2 * ELECTION_S
    cluster.tick(1)
    while cluster[1].raft.status().role is not Role.LEADER:
        cluster.deliver()
        cluster[1].sync(cluster.now)
        cluster[2].sync(cluster.now)
    cluster[1].sync(cluster.now)
    term = cluster[1].raft.state.term
    cluster.arrive(ack(term, 2))
    cluster.arrive(ack(term, 2, sender=3))
    assert cluster[1].raft.status().commit == 0
    cluster.arrive(ack(term, 3))
    assert cluster[1].raft.status().commit == 3


def test_followers_learn_the_commit_index_from_appends() -> None:
    """5.3: the leader includes the highest committed index in future AppendEntries RPCs."""
    cluster = Cluster()
    cluster.elect(1)
    first = cluster.propose(1, b"a")
    cluster.settle()
    assert cluster[2].raft.status().applied == first - 1
    cluster.propose(1, b"b")
    cluster.settle()
    assert cluster[2].raft.status().applied == first


def test_commit_stops_at_the_last_new_entry() -> None:
    """Figure 2: commitIndex = min(leaderCommit, index of last new entry)."""
    cluster = cluster_with_logs({1: [1, 1, 1]})
    answers(cluster, append(2, (2, 1), commit=3))
    assert cluster[1].raft.status().commit == 2


def test_follower_rejects_append_with_older_term() -> None:
    """5.1, figure 2: reply false if term < currentTerm."""
    cluster = cluster_with_logs({1: [1]}, term=3)
    (answer,) = answers(cluster, append(2, (1, 1), [entry(2, 2)]))
    assert isinstance(answer, AppendResponse)
    assert (answer.term, answer.match) == (3, 0)
    assert terms_of(cluster[1]) == [1]


@pytest.mark.parametrize(
    ("log", "previous", "hint"),
    [
        ([1, 1], (5, 2), (3, 0)),
        ([1, 1, 2, 2, 2], (5, 3), (3, 2)),
        ([1, 1, 1], (2, 2), (1, 1)),
        ([], (1, 1), (1, 0)),
    ],
)
def test_follower_without_the_previous_entry_rejects_with_a_hint(
    log: Sequence[int], previous: tuple[int, int], hint: tuple[int, int]
) -> None:
    """5.3: the term of the conflicting entry and the first index it stores for that term."""
    cluster = cluster_with_logs({1: log})
    assert answers(cluster, append(4, previous, [entry(previous[0] + 1, 4)])) == [
        rejected(4, previous[0], hint)
    ]
    assert terms_of(cluster[1]) == list(log)


@pytest.mark.parametrize(
    ("log", "new", "outcome"),
    [
        ([1, 1], [1, 1, 2], [1, 1, 2]),
        ([1, 1, 1], [1, 1], [1, 1, 1]),
        ([1, 1, 1], [1, 2], [1, 2]),
        ([1, 2, 2, 2], [1, 3, 3], [1, 3, 3]),
        ([], [1], [1]),
        ([1, 1], [], [1, 1]),
    ],
)
def test_follower_replaces_only_what_conflicts(
    log: Sequence[int], new: Sequence[int], outcome: list[int]
) -> None:
    """Figure 2: delete conflicting entries and all that follow; append what is not there (R8)."""
    cluster = cluster_with_logs({1: log})
    term = 5
    assert answers(cluster, append(term, (0, 0), entries(new))) == [acked(term, len(new))]
    assert terms_of(cluster[1]) == outcome
    assert [e.term for e in cluster[1].disk.entries(Index(1), Index(len(outcome)), 1000)] == outcome


def test_acknowledgement_waits_for_the_disk() -> None:
    """Figure 2: the log is updated on stable storage before responding (R4)."""
    cluster = cluster_with_logs({1: [1]})
    cluster.arrive(append(1, (1, 1), [entry(2, 1)]))
    assert cluster.take() == []
    cluster.arrive(append(1, (2, 1)))
    assert cluster.take() == [acked(1, 1)]
    cluster.sync()
    assert cluster.take() == [acked(1, 2)]


def test_heartbeat_of_durable_log_is_answered_while_a_write_is_on_its_way() -> None:
    """So a read need not wait for somebody else's write."""
    cluster = cluster_with_logs({1: [1]})
    cluster.arrive(append(1, (1, 1), [entry(2, 1)], read=3))
    cluster.arrive(append(1, (2, 1), read=4))
    assert cluster.take() == [acked(1, 1, read=4)]


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("case", sorted(FIGURE_7))
def test_leader_brings_follower_of_figure_7_into_line(case: str) -> None:
    """5.3, figure 7: the leader forces the followers' logs to duplicate its own."""
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    cluster = cluster_with_logs({1: leader_log, 2: FIGURE_7[case], 3: leader_log}, term=7)
    cluster.cut(1, 2)
    cluster.elect(1)
    cluster.cuts.clear()
    cluster.tick(1)
    cluster.settle()
    assert terms_of(cluster[2]) == [*leader_log, 8]


def test_conflict_costs_one_message_a_term() -> None:
    """5.3: one AppendEntries RPC will be required for each term with conflicting entries."""
    cluster = cluster_with_logs({1: [1] * 5 + [4] * 50, 2: [1] * 5 + [2] * 40 + [3] * 40, 3: [1] * 5}, term=4)
    cluster.elect(1)
    sent = [e for e in cluster.events if e.startswith("arrives 2>1 reject")]
    assert len(sent) <= 3, sent
    assert terms_of(cluster[2]) == terms_of(cluster[1])


def test_wild_hints_do_not_lead_the_leader_astray() -> None:
    """F7: whatever the hint, the leader steps back at least one and never below the match."""
    for hint in [(0, 0), (2**50, 0), (7, 1), (1, 2), (3, 0)]:
        cluster = cluster_with_logs({1: [1] * 6, 2: [1] * 6, 3: [1] * 6})
        cluster.cut(1, 2)
        leader = cluster.elect(1)
        cluster.cuts.clear()
        assert leader.raft.status().peers[0].next_index == 7
        cluster.arrive(reject(2, 6, hint))
        assert 1 <= leader.raft.status().peers[0].next_index <= 6
        cluster.settle()
        assert terms_of(cluster[2]) == terms_of(leader)


@pytest.mark.parametrize("copies", [2, 3])
def test_duplicated_and_reordered_traffic_changes_nothing(copies: int) -> None:
    """5.3, 5.5: Raft RPCs are idempotent (R6, R7, R8)."""
    cluster = Cluster()
    cluster.elect(1)
    for data in (b"a", b"b", b"c"):
        cluster.propose(1, data)
    for _ in range(6):
        cluster.network = list(reversed(cluster.network * copies))[:60]
        cluster.sync()
        cluster.deliver()
    cluster.network.clear()
    cluster.wait(5 * HEARTBEAT_S)
    logs = [[(e.index, e.data) for e in member.applied] for member in cluster.members.values()]
    assert logs[0] == logs[1] == logs[2] == [(1, b""), (2, b"a"), (3, b"b"), (4, b"c")]


def test_match_index_never_falls() -> None:
    """Figure 2: matchIndex increases monotonically (R7)."""
    cluster = Cluster()
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.settle()
    cluster.arrive(ack(1, 1))
    cluster.arrive(reject(1, 1, (1, 0)))
    assert leader.raft.status().peers[0].match_index == index


def test_acknowledgement_beyond_the_log_is_ignored() -> None:
    """F7: a peer cannot have what the leader never had."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.arrive(ack(1, 10**6))
    assert leader.raft.status().peers[0].match_index == leader.raft.status().last_index


def test_window_limits_appends_in_flight() -> None:
    cluster = Cluster(appends_in_flight_max=2)
    cluster.elect(1)
    for data in (b"a", b"b", b"c", b"d"):
        cluster.propose(1, data)
    to_second = [m for m in cluster.network if m.recipient == 2]
    assert len(to_second) == 2
    cluster.settle()
    assert cluster[1].raft.status().commit == cluster[1].raft.status().last_index


def test_window_limits_bytes_in_flight() -> None:
    cluster = Cluster(append_bytes_max=4, appends_in_flight_bytes_max=8)
    cluster.elect(1)
    for _ in range(5):
        cluster.propose(1, b"four")
    assert len([m for m in cluster.network if m.recipient == 2]) == 2


def test_large_backlog_is_sent_in_bounded_messages() -> None:
    cluster = Cluster(append_bytes_max=10)
    leader = cluster.elect(1)
    for _ in range(7):
        leader.raft.propose(b"123456", cluster.now)
    leader.raft.propose(b"1234567890ABCDEF", cluster.now)
    leader.perform()
    sizes = [sum(len(e.data) for e in m.entries) for m in cluster.network if isinstance(m, AppendRequest)]
    assert set(sizes) == {6, 16}
    cluster.settle()
    assert leader.raft.status().commit == 9


def test_probe_sends_one_message_a_heartbeat_interval() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.suspect(1, 2)
    assert leader.raft.status().peers[0].state is ProgressState.PROBE
    for data in (b"a", b"b"):
        cluster.propose(1, data)
    assert [m for m in cluster.network if m.recipient == 2] == []
    cluster.tick(1)
    assert len([m for m in cluster.network if m.recipient == 2]) == 1
    cluster.settle()
    assert leader.raft.status().peers[0].state is ProgressState.REPLICATE


def test_lost_append_is_found_by_the_next_heartbeat() -> None:
    """5.3: the leader retries until all followers store all entries."""
    cluster = Cluster()
    cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.take()
    cluster.tick(1)
    cluster.settle()
    assert cluster[1].raft.status().commit == index


def test_heartbeats_go_only_to_peers_that_heard_nothing_else() -> None:
    cluster = Cluster()
    cluster.elect(1)
    start = cluster.now
    cluster.now = start + HEARTBEAT_S * 0.9
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.now = start + HEARTBEAT_S * 1.1
    cluster.tick_due()
    assert cluster.network == []


def test_commit_change_alone_is_not_written() -> None:
    """The commit index is not needed for safety: it goes along with the next record."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    readies = len(cluster[2].readies)
    cluster.tick(1)
    cluster.deliver()
    assert cluster[2].raft.status().commit == 2
    assert all(ready.record is None for ready in cluster[2].readies[readies:])
    cluster.propose(1, b"b")
    cluster.settle()
    assert cluster[2].disk.hard_state.commit == 2


def test_restart_takes_commit_from_hard_state_or_tables() -> None:
    """R6: whichever is newer, and never more than the log has."""
    cluster = cluster_with_logs({1: [1, 1, 1]}, commit=2)
    assert cluster[1].raft.status().commit == 2
    cluster[1].disk.flushed = Index(3)
    cluster.restart(1)
    assert (cluster[1].raft.status().commit, cluster[1].raft.status().applied) == (3, 3)
    cluster = cluster_with_logs({1: [1]}, commit=9)
    assert cluster[1].raft.status().commit == 1


def test_committed_entries_come_in_bounded_pieces_in_order() -> None:
    cluster = cluster_with_logs({1: [1] * 9}, commit=9, apply_bytes_max=3)
    cluster[1].perform()
    pieces = [[e.index for e in ready.committed] for ready in cluster[1].readies]
    assert pieces == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_learner_gets_entries_but_does_not_count() -> None:
    """Thesis 4.2.1: a learner's copy does not make a majority (R18)."""
    cluster = Cluster([1, 2], [3])
    cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.deliver(1, 3)
    cluster[3].sync(cluster.now)
    cluster[1].sync(cluster.now)
    cluster.deliver(3, 1)
    assert cluster[1].raft.status().commit < index
    cluster.settle()
    cluster.tick(1)
    cluster.settle()
    assert cluster[3].raft.status().applied == index


def test_messages_of_strangers_and_strays_are_ignored() -> None:
    """R17, R24: answers of a removed member, requests of oneself or to another recipient."""
    cluster = Cluster()
    leader = cluster.elect(1)
    before = leader.raft.status()
    for message in (ack(9, 1, sender=7), vote(9, False, sender=7), append(9, (0, 0), sender=1)):
        leader.raft.step(message, cluster.now)
    leader.raft.step(append(9, (0, 0), recipient=3), cluster.now)
    assert leader.raft.status() == before
    assert not leader.raft.has_ready()


def test_late_report_of_replaced_entries_is_ignored() -> None:
    """R9: the disk reports an entry that is not in the log any more."""
    cluster = cluster_with_logs({1: [1]})
    cluster.arrive(append(1, (1, 1), [entry(2, 1), entry(3, 1)]))
    cluster.arrive(append(2, (1, 1), [entry(2, 2)], sender=3))
    cluster[1].sync(cluster.now, 1)
    assert cluster[1].raft.status().stable_index == 1
    cluster[1].sync(cluster.now)
    assert cluster[1].raft.status().stable_index == 2


def test_report_of_what_was_not_handed_out_is_a_bug() -> None:
    cluster = cluster_with_logs({1: [1]})
    cluster.arrive(append(1, (1, 1), [entry(2, 1)]))
    with pytest.raises(AssertionError, match="reported"):
        cluster[1].raft.stable_to(Index(2), Term(9))
