"""Elections, rule by rule: paper 5.1, 5.2, 5.4.1, 6; thesis 4.2.3, 9.6."""

from __future__ import annotations

import pytest

from etcray.raft.messages import AppendResponse, PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse
from etcray.raft.ready import Role
from etcray_storage.types import NOBODY

from .build import (
    answers,
    append,
    cluster_with_logs,
    entries,
    pre_vote_request,
    pre_voted,
    vote,
    vote_request,
    voted,
)
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster


def test_members_start_as_followers() -> None:
    """5.2: when servers start up, they begin as followers."""
    cluster = Cluster()
    assert {member.raft.status().role for member in cluster.members.values()} == {Role.FOLLOWER}
    assert not cluster[1].raft.has_ready()


def test_follower_begins_election_only_after_its_timeout() -> None:
    """5.2: if a follower receives no communication over the election timeout, it begins an election."""
    cluster = Cluster()
    deadline = cluster[1].raft.next_deadline()
    cluster[1].raft.tick(deadline - 0.001)
    assert not cluster[1].raft.has_ready()
    cluster.tick(1)
    assert cluster[1].raft.status().role is Role.PRE_CANDIDATE


def test_election_timeouts_are_spread_over_the_whole_interval() -> None:
    """5.2: election timeouts are chosen randomly from a fixed interval (R25)."""
    found = [Cluster(seed=seed)[1].raft.next_deadline() for seed in range(200)]
    assert all(ELECTION_S <= deadline < 2 * ELECTION_S for deadline in found)
    assert min(found) < 1.1 * ELECTION_S
    assert max(found) > 1.9 * ELECTION_S
    assert len(set(found)) == len(found)


def test_candidate_increments_term_and_votes_for_itself() -> None:
    """5.2: to begin an election, a follower increments its current term and votes for itself."""
    cluster = cluster_with_logs({}, term=6)
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    status = cluster[1].raft.status()
    assert (status.role, status.term, status.vote) == (Role.CANDIDATE, 7, 1)


def test_pre_candidate_keeps_its_term() -> None:
    """Thesis 9.6: a candidate only increments its term once it would be elected."""
    cluster = cluster_with_logs({}, term=6)
    cluster.tick(1)
    status = cluster[1].raft.status()
    assert (status.role, status.term, status.vote) == (Role.PRE_CANDIDATE, 6, NOBODY)
    assert all(isinstance(message, PreVoteRequest) for message in cluster.network)


def test_isolated_member_never_changes_its_term() -> None:
    """Thesis 9.6: so a member that was cut off does not disturb when it comes back (R14)."""
    cluster = Cluster()
    cluster.isolate(1)
    for _ in range(20):
        cluster.tick(1)
        cluster.deliver()
    assert cluster[1].raft.status().term == 0


def test_vote_requests_wait_for_the_candidates_own_vote() -> None:
    """5.2: the vote must be durable before anybody can act on it (R1)."""
    cluster = Cluster()
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    assert cluster.network == []
    cluster.sync()
    assert [type(message) for message in cluster.network] == [VoteRequest, VoteRequest]
    assert (cluster[1].disk.hard_state.term, cluster[1].disk.hard_state.vote) == (1, 1)


@pytest.mark.parametrize(
    ("size", "granted", "refused", "role"),
    [
        (3, [], [], Role.CANDIDATE),
        (3, [2], [], Role.LEADER),
        (3, [], [2], Role.CANDIDATE),
        (3, [], [2, 3], Role.FOLLOWER),
        (5, [2], [], Role.CANDIDATE),
        (5, [2, 3], [], Role.LEADER),
        (5, [2], [3, 4], Role.CANDIDATE),
        (5, [], [2, 3, 4], Role.FOLLOWER),
        (2, [2], [], Role.LEADER),
        (2, [], [2], Role.FOLLOWER),
    ],
)
def test_candidate_needs_majority(size: int, granted: list[int], refused: list[int], role: Role) -> None:
    """5.2: a candidate wins if it receives votes from a majority in the same term."""
    cluster = Cluster(range(1, size + 1))
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    for sender in granted:
        cluster.arrive(vote(1, True, sender=sender))
    for sender in refused:
        cluster.arrive(vote(1, False, sender=sender))
    assert cluster[1].raft.status().role is role


def test_repeated_votes_of_one_member_count_once() -> None:
    """5.2: a majority of servers, not of messages."""
    cluster = Cluster(range(1, 6))
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    for _ in range(5):
        cluster.arrive(vote(1, True, sender=2))
    assert cluster[1].raft.status().role is Role.CANDIDATE


def test_votes_of_older_term_do_not_count() -> None:
    """5.1: a message with an older term is rejected."""
    cluster = cluster_with_logs({}, term=4)
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    cluster.arrive(vote(4, True))
    assert cluster[1].raft.status().role is Role.CANDIDATE


def test_single_voter_elects_itself_at_once() -> None:
    """5.2: its own vote is the majority."""
    cluster = Cluster([1])
    assert cluster[1].raft.next_deadline() == 0.0
    cluster.tick(1)
    assert cluster[1].raft.status().role is Role.LEADER


def test_member_votes_once_a_term_first_come_first_served() -> None:
    """5.2: each server votes for at most one candidate in a term."""
    cluster = Cluster()
    assert answers(cluster, vote_request(1, (0, 0), sender=2)) == [voted(2, 1, True)]
    assert answers(cluster, vote_request(1, (0, 0), sender=3)) == [voted(3, 1, False)]
    assert answers(cluster, vote_request(1, (0, 0), sender=2)) == [voted(2, 1, True)]


def test_vote_survives_a_crash() -> None:
    """Figure 2: votedFor is persistent (R1, R3)."""
    cluster = Cluster()
    answers(cluster, vote_request(1, (0, 0), sender=2))
    cluster.crash(1)
    cluster.restart(1)
    assert answers(cluster, vote_request(1, (0, 0), sender=3)) == [voted(3, 1, False)]


def test_vote_response_waits_for_the_disk() -> None:
    """Figure 2: updated on stable storage before responding (R1, R2)."""
    cluster = Cluster()
    cluster.arrive(vote_request(1, (0, 0), sender=2))
    cluster.arrive(vote_request(1, (0, 0), sender=3))
    assert cluster.network == []
    cluster.sync()
    assert [message.granted for message in cluster.take() if isinstance(message, VoteResponse)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("own", "candidate", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1], (1, 2), True),
        ([1, 1, 1], (1, 2), True),
        ([2], (5, 1), False),
        ([], (0, 0), True),
    ],
)
def test_vote_needs_up_to_date_log(own: list[int], candidate: tuple[int, int], granted: bool) -> None:
    """5.4.1: the later last term is more up to date; with equal terms, the longer log is."""
    cluster = cluster_with_logs({1: own}, term=2)
    assert answers(cluster, vote_request(3, candidate)) == [voted(2, 3, granted)]
    cluster = cluster_with_logs({1: own}, term=2)
    assert answers(cluster, pre_vote_request(2, candidate)) == [pre_voted(2, 2, granted)]


def test_vote_counts_entries_that_are_not_durable_yet() -> None:
    """5.4.1: they may be on a majority, this member's acknowledgement being on its way."""
    cluster = cluster_with_logs({}, term=1)
    cluster.arrive(append(1, (0, 0), entries([1, 1])))
    cluster.now += 3 * ELECTION_S
    assert answers(cluster, vote_request(2, (1, 1), sender=3))[-1] == voted(3, 2, False)


def test_pre_vote_promises_nothing() -> None:
    """Thesis 9.6: several candidates may get it, and a vote is still free."""
    cluster = Cluster()
    assert answers(cluster, pre_vote_request(0, (0, 0), sender=2)) == [pre_voted(2, 0, True)]
    assert answers(cluster, pre_vote_request(0, (0, 0), sender=3)) == [pre_voted(3, 0, True)]
    assert cluster[1].raft.status().vote == NOBODY


@pytest.mark.parametrize("request_kind", [vote_request, pre_vote_request])
def test_requests_of_older_term_are_refused_with_the_newer_term(request_kind: type) -> None:
    """5.1: if a server receives a request with a stale term number, it rejects the request."""
    cluster = cluster_with_logs({}, term=5)
    (answer,) = answers(cluster, request_kind(4, (9, 4)))
    assert isinstance(answer, VoteResponse | PreVoteResponse)
    assert (answer.term, answer.granted) == (5, False)


def test_leader_steps_down_when_it_sees_a_newer_term() -> None:
    """5.1: if a candidate or leader discovers that its term is out of date, it becomes a follower."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.arrive(append(7, (0, 0), sender=3))
    status = cluster[1].raft.status()
    assert (status.role, status.term, status.leader) == (Role.FOLLOWER, 7, 3)


def test_candidate_yields_to_leader_of_its_term() -> None:
    """5.2: if the leader's term is at least as large as the candidate's, it is legitimate."""
    cluster = Cluster()
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    assert cluster[1].raft.status().role is Role.CANDIDATE
    cluster.arrive(append(1, (0, 0), sender=3))
    assert (cluster[1].raft.status().role, cluster[1].raft.status().leader) == (Role.FOLLOWER, 3)


def test_candidate_ignores_leader_of_older_term() -> None:
    """5.2: otherwise the candidate rejects the RPC and continues in candidate state."""
    cluster = cluster_with_logs({}, term=4)
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    (answer,) = answers(cluster, append(4, (0, 0)))[-1:]
    assert cluster[1].raft.status().role is Role.CANDIDATE
    assert isinstance(answer, AppendResponse)
    assert answer.term == 5


def test_second_leader_of_a_term_is_not_believed() -> None:
    """5.2: at most one candidate can win a term, so such a peer is at fault."""
    cluster = Cluster()
    leader = cluster.elect(1)
    assert answers(cluster, append(leader.raft.state.term, (0, 0), sender=2)) == []
    assert leader.raft.status().role is Role.LEADER


def test_votes_are_refused_while_a_leader_is_heard() -> None:
    """6: if a server receives a RequestVote within the election timeout of hearing from a current
    leader, it does not update its term or grant its vote."""
    cluster = Cluster()
    cluster.elect(2)
    assert answers(cluster, vote_request(9, (9, 9), sender=3)) == []
    assert answers(cluster, pre_vote_request(9, (9, 9), sender=3)) == []
    assert cluster[1].raft.status().term == 1
    cluster.now += ELECTION_S
    assert answers(cluster, vote_request(9, (9, 9), sender=3)) == [voted(3, 9, True)]


def test_leader_refuses_votes_while_it_hears_a_majority() -> None:
    """6, thesis 4.2.3: the leader itself hears a leader."""
    cluster = Cluster()
    cluster.elect(1)
    assert answers(cluster, vote_request(9, (9, 9), sender=3)) == []
    assert cluster[1].raft.status().role is Role.LEADER
    cluster.now += ELECTION_S
    assert answers(cluster, vote_request(9, (9, 9), sender=3)) == [voted(3, 9, True)]


def test_leader_without_majority_steps_down_within_an_election_timeout() -> None:
    """Thesis 6.2: a leader steps down if an election timeout elapses without a majority's answer."""
    cluster = Cluster()
    cluster.elect(1)
    start = cluster.now
    cluster.isolate(1)
    while cluster[1].raft.status().role is Role.LEADER:
        cluster.tick(1)
        cluster.deliver()
    assert cluster.now - start <= ELECTION_S + HEARTBEAT_S
    assert cluster[1].raft.status().term == 1


def test_leader_with_bare_majority_stays() -> None:
    """Thesis 6.2: a partial partition does not unseat a leader (R14)."""
    cluster = Cluster(range(1, 6))
    cluster.elect(1)
    for other in (4, 5):
        cluster.cut(1, other)
        cluster.cut(2, other)
    cluster.wait(5 * ELECTION_S)
    assert (cluster[1].raft.status().role, cluster[1].raft.status().term) == (Role.LEADER, 1)


def test_member_that_one_follower_cannot_reach_does_not_disturb() -> None:
    """R14: 3 hears 2 but not the leader 1. It never gets a pre-vote, and the term stays."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut(1, 3)
    cluster.wait(10 * ELECTION_S)
    assert (cluster[1].raft.status().role, cluster[1].raft.status().term) == (Role.LEADER, 1)
    assert cluster[3].raft.status().term == 1


def test_members_that_start_together_elect_soon() -> None:
    """5.2: randomised timeouts resolve split votes quickly (R25)."""
    for seed in range(50):
        cluster = Cluster(range(1, 6), seed=seed)
        cluster.wait(6 * ELECTION_S)
        assert len(cluster.leaders()) == 1, f"seed {seed}"


def test_suspicion_shortens_the_wait_and_lifts_the_protection() -> None:
    """A failed call to the leader is evidence that silence is not."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.suspect(2, 1)
    assert cluster[2].raft.next_deadline() <= cluster.now + HEARTBEAT_S
    cluster.suspect(3, 1)
    cluster.crash(1)
    cluster.tick(2)
    cluster.settle()
    assert cluster[2].raft.status().role is Role.LEADER


def test_suspicion_of_others_than_the_leader_changes_nothing() -> None:
    cluster = Cluster()
    cluster.elect(1)
    before = cluster[2].raft.next_deadline()
    cluster.suspect(2, 3)
    assert (cluster[2].raft.next_deadline(), cluster[2].raft.status().leader) == (before, 1)


def test_learner_neither_campaigns_nor_counts() -> None:
    """Thesis 4.2.1: non-voting members are not counted for elections (R18)."""
    cluster = Cluster([1, 2], [3])
    cluster.now += 10 * ELECTION_S
    cluster.tick(3)
    assert cluster[3].raft.status().role is Role.FOLLOWER
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    cluster.arrive(vote(1, True, sender=3))
    assert cluster[1].raft.status().role is Role.CANDIDATE


def test_vote_does_not_depend_on_the_voters_own_membership() -> None:
    """Thesis 4.2.2: the candidate's membership may be newer than the voter's, or the other way round."""
    cluster = Cluster([1, 2], [3])
    assert answers(cluster, vote_request(5, (9, 4), sender=3)) == [voted(3, 5, True)]
    assert answers(cluster, vote_request(6, (9, 4), sender=7)) == [voted(7, 6, True)]
