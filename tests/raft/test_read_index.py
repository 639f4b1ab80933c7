"""Linearizable reads: thesis 6.4, and how others have got them wrong (R10-R13)."""

from __future__ import annotations

import pytest

from etcray.raft.errors import NotLeaderError
from etcray.raft.messages import AppendRequest
from etcray.raft.read_index import ReadRounds, ReadState
from etcray_storage.types import Index

from .build import ack, cluster_with_logs, vote
from .cluster import ELECTION_S, Cluster, Member


def _elected_without_commit() -> tuple[Cluster, Member]:
    """Member 1 leads term 2, and its no-op is on nobody's disk."""
    cluster = cluster_with_logs({1: [1], 2: [1], 3: [1]})
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    cluster.arrive(vote(2, True))
    cluster.sync()
    cluster.take()
    return cluster, cluster[1]


def test_read_needs_a_majority_that_answers_after_it_began() -> None:
    """6.4, step 3: the leader issues a round of heartbeats and waits for a majority."""
    cluster = Cluster()
    leader = cluster.elect(1)
    token = cluster.read(1)
    assert leader.answered == []
    cluster.deliver()
    cluster.deliver(2, 1)
    assert leader.answered == [(token, 1)]


def test_read_needs_more_than_a_minority() -> None:
    cluster = Cluster(range(1, 6))
    leader = cluster.elect(1)
    token = cluster.read(1)
    cluster.deliver()
    cluster.deliver(2, 1)
    assert leader.answered == []
    cluster.deliver(3, 1)
    assert leader.answered == [(token, 1)]


def test_read_waits_for_a_commit_in_the_leaders_own_term() -> None:
    """6.4, step 1: until then the leader does not know what is committed (R10)."""
    cluster, leader = _elected_without_commit()
    token = cluster.read(1)
    cluster.arrive(ack(2, 1, read=1))
    cluster.arrive(ack(2, 1, read=1, sender=3))
    assert leader.answered == []
    cluster.arrive(ack(2, 2))
    assert leader.answered == []
    cluster.settle()
    assert leader.answered == [(token, 2)]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_echo_from_before_the_read_confirms_nothing(times: int) -> None:
    """6.4, R11: a delayed or repeated answer says nothing about the time after the read began."""
    cluster = Cluster()
    leader = cluster.elect(1)
    first = cluster.read(1)
    cluster.deliver()
    old = cluster.take(2, 1)
    cluster.settle()
    assert leader.answered == [(first, 1)]
    cluster.isolate(1)
    cluster.read(1)
    cluster.cuts.clear()
    for _ in range(times):
        cluster.arrive(old[0])
    assert [token for token, _ in leader.answered] == [first]


def test_echo_of_a_round_that_was_never_sent_is_ignored() -> None:
    """F7: a peer cannot have heard what this leader has not said."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.read(1)
    cluster.take()
    cluster.arrive(ack(1, 1, read=10**9))
    assert leader.answered == []


def test_reads_between_two_readies_share_a_round() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    tokens = [leader.raft.read_index(cluster.now) for _ in range(5)]
    leader.perform()
    assert len(cluster.network) == 2
    cluster.settle()
    assert [token for token, _ in leader.answered] == tokens


def test_append_carries_the_round_of_a_read() -> None:
    """A read under load costs no messages of its own."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.propose(b"a", cluster.now)
    token = leader.raft.read_index(cluster.now)
    leader.perform()
    assert len([m for m in cluster.network if isinstance(m, AppendRequest) and m.entries]) == 2
    assert len(cluster.network) == 2
    cluster.settle()
    assert leader.answered == [(token, 1)]


def test_lost_round_is_repeated_by_the_next_heartbeat() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    token = cluster.read(1)
    cluster.take()
    cluster.tick(1)
    cluster.settle()
    assert leader.answered == [(token, 1)]


def test_read_reaches_a_peer_whose_window_is_full() -> None:
    cluster = Cluster(appends_in_flight_max=1)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.take()
    token = cluster.read(1)
    cluster.settle()
    assert (token, 1) in leader.answered


def test_read_does_not_wait_for_the_followers_disks() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.deliver()
    token = cluster.read(1)
    cluster.deliver()
    cluster.deliver()
    assert leader.answered == [(token, 1)]
    assert all(cluster[member].writes for member in (1, 2, 3))


def test_deposed_leader_never_confirms_a_read() -> None:
    """6.4: a newer leader may have committed what this one has not seen."""
    cluster = Cluster()
    old = cluster.elect(1)
    cluster.isolate(1)
    token = cluster.read(1)
    cluster.elect(2)
    cluster.propose(2, b"newer")
    cluster.settle()
    cluster.cuts.clear()
    cluster.wait(3 * ELECTION_S)
    assert old.answered == []
    assert old.lost_reads == [token]


def test_reads_held_for_the_first_commit_are_lost_with_leadership() -> None:
    """R12: every read ends, either confirmed or lost."""
    cluster, leader = _elected_without_commit()
    tokens = [cluster.read(1), cluster.read(1)]
    cluster.now += ELECTION_S
    cluster.tick(1)
    assert leader.lost_reads == tokens
    assert leader.answered == []


def test_confirmed_read_stays_valid_if_leadership_is_lost_at_once() -> None:
    """R12: it was confirmed for a moment after it began; what comes later does not matter."""
    cluster = Cluster()
    leader = cluster.elect(1)
    token = cluster.read(1)
    cluster.deliver()
    (echo,) = cluster.take(2, 1)
    leader.raft.step(echo, cluster.now)
    leader.raft.step(ack(9, 0, sender=3), cluster.now)
    leader.perform()
    assert (leader.answered, leader.lost_reads) == ([(token, 1)], [])


def test_single_voter_answers_at_once() -> None:
    cluster = Cluster([1])
    cluster.tick(1)
    early = cluster.read(1)
    assert cluster[1].answered == []
    cluster.sync()
    assert cluster[1].answered == [(early, 1)]
    token = cluster.read(1)
    assert cluster[1].answered[-1] == (token, 1)


def test_only_the_leader_takes_reads() -> None:
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(NotLeaderError) as caught:
        cluster.read(3)
    assert caught.value.leader == 1


def test_tokens_are_not_reused_over_leaderships() -> None:
    """So the answer to an old read is never taken for that of a new one."""
    cluster = Cluster()
    cluster.elect(1)
    first = cluster.read(1)
    cluster.arrive(ack(9, 0))
    cluster.take()
    cluster.elect(1)
    assert cluster.read(1) > first


def test_round_closes_when_its_first_request_leaves() -> None:
    rounds = ReadRounds()
    rounds.begin(1, Index(5))
    rounds.begin(2, Index(6))
    rounds.close_round()
    rounds.begin(3, Index(7))
    assert rounds.confirm(1) == [ReadState(1, Index(5)), ReadState(2, Index(6))]
    assert rounds.unanswered() == [3]
    assert rounds.confirm(2) == [ReadState(3, Index(7))]
    assert rounds.is_idle
