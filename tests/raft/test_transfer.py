"""Handing leadership over, rule by rule: raft/transfer.py, thesis 3.10 and 4.2.3."""

from __future__ import annotations

import pytest

from etcray.raft.errors import DropReason, NotLeaderError, ProposalDroppedError, TransferRefusedError
from etcray.raft.messages import TimeoutNow, VoteRequest, VoteResponse
from etcray.raft.ready import Role
from etcray_storage.types import NOBODY, Index, MemberId, Term

from .build import append, entry, vote_request
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster


def timeout_now(term: int, last_index: int, *, sender: int = 2, recipient: int = 1) -> TimeoutNow:
    return TimeoutNow(MemberId(sender), MemberId(recipient), Term(term), Index(last_index))


def test_leadership_moves_before_any_time_passes() -> None:
    cluster = Cluster()
    cluster.elect(1)
    before = cluster.now
    cluster.transfer_leadership(1, 3)
    cluster.settle()
    assert [leader.id for leader in cluster.leaders()] == [3]
    assert cluster.now == before


@pytest.mark.parametrize("to", [1, 4, 9])
def test_only_another_voter_can_follow(to: int) -> None:
    """R19: not the leader itself, not a learner, not a stranger."""
    cluster = Cluster([1, 2, 3], [4])
    leader = cluster.elect(1)
    with pytest.raises(TransferRefusedError):
        cluster.transfer_leadership(1, to)
    assert leader.raft.status().transfer_target == NOBODY


def test_only_the_leader_hands_over() -> None:
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(NotLeaderError):
        cluster.transfer_leadership(2, 3)


def test_one_transfer_at_a_time() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.transfer_leadership(1, 2)
    cluster.transfer_leadership(1, 2)
    with pytest.raises(TransferRefusedError, match="on its way to 2"):
        cluster.transfer_leadership(1, 3)
    assert leader.raft.status().transfer_target == 2
    assert [type(message) for message in cluster.network] == [TimeoutNow]


def test_transfer_and_change_of_membership_exclude_each_other() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.change(1, "learner 4")
    with pytest.raises(TransferRefusedError, match="membership"):
        cluster.transfer_leadership(1, 2)
    cluster.settle()
    cluster.transfer_leadership(1, 2)
    with pytest.raises(ProposalDroppedError) as caught:
        cluster.change(1, "learner 5")
    assert caught.value.reason is DropReason.TRANSFER


def test_successor_is_told_once_all_is_durable_there() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.transfer_leadership(1, 2)
    cluster.deliver(1, 2)
    assert not any(isinstance(message, TimeoutNow) for message in cluster.network)
    cluster[2].sync(cluster.now)
    cluster.deliver(2, 1)
    assert any(isinstance(message, TimeoutNow) for message in cluster.network)


def test_proposals_are_dropped_and_reads_are_served_meanwhile() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.cut(1, 3)
    cluster.transfer_leadership(1, 3)
    with pytest.raises(ProposalDroppedError) as caught:
        cluster.propose(1, b"a")
    assert caught.value.reason is DropReason.TRANSFER
    cluster.read(1)
    cluster.settle()
    assert len(leader.answered) == 1


def test_transfer_is_given_up_after_an_election_timeout() -> None:
    """R19: the successor is dead; the leader goes on, and its deadline says when to look."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.crash(3)
    cluster.transfer_leadership(1, 3)
    begun = cluster.now
    cluster.wait(0.9 * ELECTION_S)
    assert leader.raft.status().transfer_target == 3
    assert leader.raft.next_deadline() <= begun + ELECTION_S
    cluster.wait(0.2 * ELECTION_S)
    assert (leader.raft.status().transfer_target, leader.raft.status().role) == (NOBODY, Role.LEADER)
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert leader.raft.status().commit == index


def test_lost_order_is_repeated_with_the_next_heartbeat() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.transfer_leadership(1, 2)
    cluster.take()
    cluster.tick(1)
    cluster.settle()
    assert [leader.id for leader in cluster.leaders()] == [2]


def test_order_skips_the_pre_vote_and_its_votes_skip_the_protection() -> None:
    """Thesis 4.2.3: or nobody would vote while the old leader is heard."""
    cluster = Cluster()
    cluster.arrive(append(3, (0, 0), [entry(1, 3)]))
    cluster.sync()
    cluster.take()
    cluster.arrive(timeout_now(3, 1))
    assert (cluster[1].raft.status().role, cluster[1].raft.status().term) == (Role.CANDIDATE, 4)
    assert cluster.network == []
    cluster.sync()
    assert [message.transfer for message in cluster.take() if isinstance(message, VoteRequest)] == [
        True,
        True,
    ]


def test_vote_request_of_a_transfer_is_heard_beside_a_leader() -> None:
    cluster = Cluster()
    cluster.arrive(append(3, (0, 0), [entry(1, 3)]))
    cluster.sync()
    cluster.take()
    cluster.arrive(VoteRequest(MemberId(3), MemberId(1), Term(4), Index(1), Term(3), True))
    cluster.sync()
    votes = [message for message in cluster.take() if isinstance(message, VoteResponse)]
    assert [(vote.term, vote.granted) for vote in votes] == [(4, True)]


def test_ordinary_vote_request_is_still_not_heard_beside_a_leader() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.arrive(vote_request(9, (9, 8), sender=3))
    assert cluster[1].raft.status().term == 1


def test_vote_of_the_term_is_not_given_twice_through_a_transfer() -> None:
    """The successor campaigns in the next term; its vote in the old one stays."""
    cluster = Cluster()
    cluster.arrive(vote_request(3, (0, 0)))
    cluster.arrive(append(3, (0, 0), [entry(1, 3)]))
    cluster.sync()
    assert cluster[1].disk.hard_state.vote == 2
    cluster.take()
    cluster.arrive(timeout_now(3, 1))
    cluster.sync()
    assert cluster[1].disk.hard_state.term == 4
    assert cluster[1].disk.hard_state.vote == 1
    cluster.arrive(vote_request(4, (9, 3), sender=3))
    cluster.sync()
    assert not any(getattr(message, "granted", False) for message in cluster.take())


@pytest.mark.parametrize(
    ("term", "last_index", "sender"),
    [(2, 1, 2), (3, 0, 2), (3, 2, 2), (3, 1, 3)],
    ids=["older term", "log has grown", "log is shorter", "not from the leader"],
)
def test_order_that_is_not_of_now_changes_nothing(term: int, last_index: int, sender: int) -> None:
    cluster = Cluster()
    cluster.arrive(append(3, (0, 0), [entry(1, 3)]))
    cluster.sync()
    cluster.take()
    cluster.arrive(timeout_now(term, last_index, sender=sender))
    assert (cluster[1].raft.status().role, cluster[1].raft.status().term) == (Role.FOLLOWER, 3)


def test_repeated_order_changes_nothing() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.transfer_leadership(1, 2)
    (order,) = cluster.take()
    for _ in range(3):
        cluster.arrive(order)
    cluster.settle()
    cluster.arrive(order)
    assert cluster[2].raft.status().term == 2
    assert [leader.id for leader in cluster.leaders()] == [2]


def test_learner_does_not_follow_the_order() -> None:
    cluster = Cluster([2, 3], [1])
    cluster.arrive(append(3, (0, 0), [entry(1, 3)]))
    cluster.sync()
    cluster.arrive(timeout_now(3, 1))
    cluster.now += 5 * ELECTION_S
    cluster.tick(1)
    assert cluster[1].raft.status().role is Role.FOLLOWER


def test_lagging_successor_is_brought_up_to_date_first() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut(1, 3)
    for number in range(20):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.transfer_leadership(1, 3)
    cluster.cuts.clear()
    cluster.wait(2 * HEARTBEAT_S)
    assert [leader.id for leader in cluster.leaders()] == [3]
    assert cluster[3].raft.status().commit == 22


def test_order_waits_for_the_successor_to_apply_a_change() -> None:
    """The order comes with the commit of the removal; by the old membership it must not campaign."""
    cluster = Cluster()
    cluster.elect(1)
    for follower in (2, 3):
        cluster[follower].applies_by_itself = False
    cluster.change(1, "remove 1")
    cluster.settle()
    assert cluster.leaders() == []
    assert cluster[2].raft.status().role is Role.FOLLOWER
    cluster[2].apply(100)
    cluster.settle()
    assert [leader.id for leader in cluster.leaders()] == [2]
