"""Changes of membership, rule by rule: raft/membership.py, thesis 4.1 to 4.3."""

from __future__ import annotations

import pytest

from etcray.raft.errors import DropReason, NotLeaderError, ProposalDroppedError
from etcray.raft.messages import InstallSnapshotRequest, VoteRequest
from etcray.raft.ready import Role
from etcray_storage.types import Entry, EntryKind, Index, MemberId, Membership, SnapshotMeta, Term

from .build import ack, append, cluster_with_logs, entry, vote, vote_request, voted
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster, Member


def membership(*voters: int, learners: tuple[int, ...] = ()) -> Membership:
    return Membership(
        tuple(MemberId(voter) for voter in voters), tuple(MemberId(learner) for learner in learners)
    )


def change(index: int, term: int, what: str) -> Entry:
    return Entry(Index(index), Term(term), EntryKind.MEMBERSHIP, what.encode())


def of(member: Member) -> Membership:
    return member.raft.status().membership


def changed(cluster: Cluster, leader: int, *changes: str) -> None:
    """Carry out changes in a healthy cluster; whoever is added joins at once."""
    for what in changes:
        cluster.change(leader, what)
        cluster.settle()
        added = int(what.split()[1])
        if added not in cluster.members:
            cluster.join(added)
        cluster.wait(2 * HEARTBEAT_S)


def alone() -> tuple[Cluster, Member]:
    """A single voter that leads."""
    cluster = Cluster([1])
    cluster.tick(1)
    cluster.settle()
    return cluster, cluster[1]


def test_change_takes_effect_when_it_is_applied_not_before() -> None:
    """As etcd: what is only committed does not count yet."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.applies_by_itself = False
    index = cluster.change(1, "voter 4")
    cluster.settle()
    assert leader.raft.status().commit == index
    assert of(leader) == membership(1, 2, 3)
    leader.apply(1)
    assert of(leader) == membership(1, 2, 3, 4)
    assert [peer.member for peer in leader.raft.status().peers] == [2, 3, 4]


def test_second_change_waits_until_the_first_is_applied() -> None:
    """R16: a committed change that is not applied still stands in the way."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.applies_by_itself = False
    cluster.change(1, "learner 4")
    for _ in range(2):
        with pytest.raises(ProposalDroppedError) as caught:
            cluster.change(1, "remove 3")
        assert caught.value.reason is DropReason.MEMBERSHIP
        cluster.settle()
    cluster.propose(1, b"commands are not held up")
    leader.apply(100)
    cluster.change(1, "remove 3")


def test_refused_change_makes_room_for_the_next() -> None:
    """The state machine may refuse a change; the membership is then reported as it was."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.change(1, "promote 9")
    cluster.settle()
    assert of(leader) == membership(1, 2, 3)
    cluster.change(1, "remove 3")


def test_new_leader_takes_no_change_before_its_no_op_is_applied() -> None:
    """R15: the flaw of single-server changes found in 2015; here also for want of knowing the log."""
    cluster = Cluster()
    cluster.elect(1)
    leader = cluster[2]
    cluster.now += 3 * ELECTION_S
    leader.raft.state.election_deadline = cluster.now
    cluster.tick(2)
    for _ in range(4):
        cluster.deliver()
        leader.sync(cluster.now)
    for voter in (1, 3):
        cluster[voter].sync(cluster.now)
    cluster.deliver()
    assert leader.raft.status().role is Role.LEADER
    with pytest.raises(ProposalDroppedError, match="entry 2"):
        cluster.change(2, "remove 1")
    cluster.settle()
    cluster.change(2, "remove 1")


def test_learner_counts_for_nothing_until_it_is_promoted() -> None:
    """R18: neither for commits, nor for reads, nor as a sign of life."""
    cluster = Cluster([1, 2], [3])
    leader = cluster.elect(1)
    cluster.cut(1, 2)
    index = cluster.propose(1, b"a")
    token = cluster.read(1)
    cluster.settle()
    assert leader.raft.status().commit < index
    assert leader.answered == []
    cluster.wait(1.1 * ELECTION_S)
    assert leader.raft.status().role is Role.FOLLOWER
    assert leader.lost_reads == [token]


def test_promoted_learner_counts_from_then_on() -> None:
    cluster = Cluster([1, 2], [3])
    leader = cluster.elect(1)
    changed(cluster, 1, "promote 3")
    cluster.cut(1, 2)
    index = cluster.propose(1, b"a")
    cluster.read(1)
    cluster.settle()
    assert leader.raft.status().commit == index
    assert len(leader.answered) == 1
    cluster.wait(3 * ELECTION_S)
    assert leader.raft.status().role is Role.LEADER


def test_learner_that_does_not_know_of_its_promotion_votes() -> None:
    """Or the first election after a promotion could fail for want of a vote."""
    cluster = Cluster([1, 2], [3])
    cluster.elect(1)
    cluster.cut(1, 3)
    cluster.cut(2, 3)
    cluster.change(1, "promote 3")
    cluster.settle()
    cluster.tick(1)
    cluster.settle()
    cluster.crash(1)
    cluster.cuts.clear()
    cluster.now += 3 * ELECTION_S
    cluster.elect(2)
    assert of(cluster[3]) == membership(1, 2, 3)


def test_smaller_quorum_commits_and_confirms_what_waited_for_the_larger_one() -> None:
    cluster = Cluster([1, 2, 3, 4])
    leader = cluster.elect(1)
    cluster.crash(4)
    leader.applies_by_itself = False
    cluster.change(1, "remove 4")
    cluster.settle()
    cluster.cut(1, 3)
    index = cluster.propose(1, b"a")
    cluster.read(1)
    cluster.settle()
    assert leader.raft.status().commit == index - 1
    assert leader.answered == []
    leader.apply(1)
    assert leader.raft.status().commit == index
    assert len(leader.answered) == 1


def test_one_voter_grows_to_three_and_shrinks_to_one() -> None:
    cluster, leader = alone()
    changed(cluster, 1, "voter 2", "learner 3", "promote 3")
    assert of(cluster[3]) == membership(1, 2, 3)
    cluster.crash(2)
    cluster.propose(1, b"a")
    cluster.settle()
    changed(cluster, 1, "remove 2", "remove 3")
    index = cluster.propose(1, b"b")
    cluster.settle()
    assert (leader.raft.status().commit, of(leader)) == (index, membership(1))
    assert leader.raft.status().peers == ()


def test_new_voter_gets_an_election_timeout_to_answer() -> None:
    """One that never comes up costs a single voter its leadership, not at once, and safety never."""
    cluster, leader = alone()
    cluster.change(1, "voter 2")
    cluster.settle()
    cluster.now += 0.9 * ELECTION_S
    cluster.tick_due()
    assert leader.raft.status().role is Role.LEADER
    cluster.wait(0.2 * ELECTION_S)
    assert leader.raft.status().role is not Role.LEADER
    cluster.join(2)
    cluster.wait(4 * ELECTION_S)
    assert len(cluster.leaders()) == 1


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_removed_leader_hands_over_without_a_timeout(rest: int) -> None:
    """R17: it leads until the others know, then one of them is elected before any time passes."""
    cluster = Cluster(range(1, rest + 2))
    cluster.elect(1)
    before = cluster.now
    cluster.change(1, "remove 1")
    cluster.settle()
    leaders = cluster.leaders()
    assert len(leaders) == 1
    assert leaders[0].id != 1
    assert cluster.now - before <= HEARTBEAT_S
    assert 1 not in of(leaders[0]).voters
    cluster.now += 10 * ELECTION_S
    cluster.tick(1)
    assert cluster[1].raft.status().role is Role.FOLLOWER
    assert cluster.take() == []


def test_removed_leader_takes_no_more_work() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.change(1, "remove 1")
    for _ in range(2):
        cluster.sync()
        cluster.deliver()
    assert leader.raft.status().role is Role.LEADER
    with pytest.raises(NotLeaderError):
        cluster.propose(1, b"a")
    with pytest.raises(NotLeaderError):
        cluster.read(1)
    with pytest.raises(NotLeaderError):
        cluster.transfer_leadership(1, 2)


def test_removed_leader_commits_by_the_others_alone() -> None:
    """Thesis 4.2.2: it does not count itself in majorities."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.change(1, "remove 1")
    cluster.sync()
    cluster.deliver()
    cluster.propose(1, b"a")
    leader.sync(cluster.now)
    cluster[2].sync(cluster.now)
    cluster.deliver(2, 1)
    assert of(leader) == membership(2, 3)
    cluster.deliver(1, 2)
    cluster[2].sync(cluster.now)
    cluster.deliver(2, 1)
    assert leader.raft.status().commit == 2
    cluster.deliver(1, 3)
    cluster[3].sync(cluster.now)
    cluster.deliver(3, 1)
    assert leader.raft.status().commit == 3


def test_removed_leader_that_nobody_hears_steps_down_after_an_election_timeout() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.change(1, "remove 1")
    cluster.deliver()
    cluster.sync()
    cluster.deliver()
    cluster.isolate(1)
    cluster.settle()
    assert leader.raft.status().role is Role.LEADER
    cluster.now += 1.1 * ELECTION_S
    cluster.tick(1)
    assert leader.raft.status().role is Role.FOLLOWER


def test_removed_follower_is_told() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.change(1, "remove 3")
    cluster.settle()
    assert of(cluster[3]) == membership(1, 2)
    cluster.now += 10 * ELECTION_S
    cluster.tick(3)
    assert cluster.network == []


def test_votes_and_answers_of_removed_members_do_not_count() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    changed(cluster, 1, "remove 3", "voter 4")
    index = cluster.propose(1, b"a")
    cluster.sync()
    cluster.arrive(ack(1, index, sender=3))
    cluster.arrive(ack(9, index, sender=3))
    cluster.arrive(vote(9, False, sender=3))
    status = leader.raft.status()
    assert (status.commit, status.term, status.role) == (index - 1, 1, Role.LEADER)


def test_member_does_not_campaign_while_a_committed_change_is_not_applied() -> None:
    """Else it could be elected by a membership that is two changes old."""
    cluster = Cluster()
    cluster.elect(1)
    follower = cluster[2]
    follower.applies_by_itself = False
    cluster.change(1, "remove 3")
    cluster.settle()
    cluster.tick(1)
    cluster.settle()
    cluster.crash(1)
    cluster.now += 5 * ELECTION_S
    cluster.tick(2)
    assert follower.raft.status().role is Role.FOLLOWER
    follower.apply(10)
    cluster.tick(2)
    assert follower.raft.status().role is Role.PRE_CANDIDATE
    assert {message.recipient for message in cluster.network} == {1}


def test_restarted_member_applies_committed_changes_before_it_campaigns() -> None:
    """Its tables are behind; what the log's commit index covers counts first."""
    cluster = Cluster()
    cluster.elect(1)
    changed(cluster, 1, "voter 4", "voter 5", "voter 6")
    member = cluster[2]
    cluster.crash(2)
    member.applies_by_itself = False
    cluster.restart(2)
    assert of(member) == membership(1, 2, 3)
    cluster.now += 5 * ELECTION_S
    cluster.tick(2)
    assert member.raft.status().role is Role.FOLLOWER
    member.apply(100)
    cluster.tick(2)
    assert member.raft.status().role is Role.PRE_CANDIDATE
    assert {message.recipient for message in cluster.take(2)} == {1, 3, 4, 5, 6}


def test_record_of_a_change_says_that_the_one_before_is_committed() -> None:
    """What a candidate that has been away may lack, it can at least not have forgotten."""
    cluster = Cluster()
    cluster.elect(1)
    changed(cluster, 1, "voter 4", "voter 5")
    for member in cluster.members.values():
        changes: list[Index] = []
        commit = Index(0)
        for ready in member.readies:
            if ready.record is None:
                continue
            if ready.record.hard_state is not None:
                commit = ready.record.hard_state.commit
            changes += [one.index for one in ready.record.entries if one.kind is EntryKind.MEMBERSHIP]
            assert not changes[:-1] or commit >= changes[-2], f"{member.id}: {changes} with commit {commit}"
        assert len(changes) == 2


def test_commit_of_a_change_is_saved_before_it_is_acknowledged() -> None:
    cluster = cluster_with_logs({1: [1]}, term=1, commit=1)
    cluster[1].perform()
    cluster.arrive(append(1, (1, 1), [change(2, 1, "remove 2")]))
    cluster.sync()
    cluster.take()
    cluster.arrive(append(1, (2, 1), commit=2))
    assert cluster.network == []
    assert cluster[1].disk.hard_state.commit == 1
    cluster.sync()
    assert cluster.take() == [ack(1, 2, commit=2, sender=1, recipient=2)]
    assert cluster[1].disk.hard_state.commit == 2


def test_change_that_is_replaced_in_the_log_is_forgotten() -> None:
    """5.3: a later leader's log does not have it. It never took effect, and holds up no other."""
    cluster = cluster_with_logs({1: [1]}, term=1)
    cluster.arrive(append(1, (1, 1), [change(2, 1, "remove 3")]))
    cluster.sync()
    cluster.arrive(append(2, (1, 1), [entry(2, 2)], commit=2, sender=3))
    cluster.sync()
    assert cluster[1].applied[-1] == entry(2, 2)
    assert of(cluster[1]) == membership(1, 2, 3)
    cluster.elect(1)
    cluster.change(1, "remove 3")


def test_second_change_of_a_peer_at_fault_is_not_stored() -> None:
    """No correct leader proposes it before the first is committed, and it says so."""
    cluster = cluster_with_logs({1: [1]}, term=1)
    cluster.arrive(append(1, (1, 1), [change(2, 1, "remove 3"), change(3, 1, "voter 4")]))
    assert cluster[1].raft.status().last_index == 1
    cluster.arrive(append(1, (1, 1), [change(2, 1, "remove 3")]))
    cluster.arrive(append(1, (2, 1), [change(3, 1, "voter 4")]))
    assert cluster[1].raft.status().last_index == 2
    cluster.arrive(append(1, (2, 1), [change(3, 1, "voter 4")], commit=2))
    assert cluster[1].raft.status().last_index == 3


def test_snapshot_brings_its_membership() -> None:
    cluster = cluster_with_logs({1: [1]}, term=3)
    meta = SnapshotMeta(Index(7), Term(2), membership(1, 5))
    cluster.arrive(InstallSnapshotRequest(MemberId(5), MemberId(1), Term(3), meta))
    cluster.sync()
    assert of(cluster[1]) == membership(1, 5)
    cluster.now += 5 * ELECTION_S
    cluster.tick(1)
    assert {message.recipient for message in cluster.network if message.term == 3} == {5}
    cluster.crash(1)
    cluster.restart(1)
    assert of(cluster[1]) == membership(1, 5)


def test_snapshot_without_voters_is_refused() -> None:
    cluster = cluster_with_logs({1: [1]}, term=3)
    for wrong in (Membership(), membership(1, 1), membership(1, learners=(1,)), membership(0, 1)):
        meta = SnapshotMeta(Index(7), Term(2), wrong)
        cluster.arrive(InstallSnapshotRequest(MemberId(2), MemberId(1), Term(3), meta))
    cluster.sync()
    assert cluster[1].raft.status().commit == 0


def test_report_that_a_snapshot_has_overtaken_changes_nothing() -> None:
    cluster = cluster_with_logs({1: [1]}, term=3)
    member = cluster[1]
    member.applies_by_itself = False
    cluster.arrive(append(3, (1, 1), [change(2, 3, "remove 2")], commit=2))
    cluster.sync()
    assert [one.index for one in member.unapplied] == [1, 2]
    meta = SnapshotMeta(Index(7), Term(3), membership(1, 5))
    cluster.arrive(InstallSnapshotRequest(MemberId(2), MemberId(1), Term(3), meta))
    cluster.sync()
    member.raft.membership_applied(Index(2), membership(1, 3), cluster.now)
    assert of(member) == membership(1, 5)


def test_reports_that_skip_a_change_are_a_bug() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.applies_by_itself = False
    index = cluster.change(1, "learner 4")
    with pytest.raises(AssertionError, match=f"change {index} reported, handed out"):
        leader.raft.membership_applied(index, membership(1, 2, 3), cluster.now)
    cluster.settle()
    with pytest.raises(AssertionError, match=f"change {index + 1} reported"):
        leader.raft.membership_applied(Index(index + 1), membership(1, 2, 3), cluster.now)
    with pytest.raises(AssertionError, match="is not reported"):
        leader.raft.log_compacted_to(index)


def test_joining_member_follows_a_leader_that_it_does_not_know_and_does_not_campaign() -> None:
    """The founders are gone; who joins knows nobody else."""
    cluster = Cluster()
    cluster.elect(1)
    changed(cluster, 1, "voter 4", "voter 5")
    cluster.change(1, "remove 1")
    cluster.settle()
    cluster.elect(5)
    changed(cluster, 5, "remove 2", "remove 3")
    newcomer = cluster.join(6)
    newcomer.raft.state.election_deadline = cluster.now
    cluster.tick(6)
    assert cluster.take(6) == []
    changed(cluster, 5, "learner 6")
    assert of(newcomer) == membership(4, 5, learners=(6,))


def test_joining_member_that_needs_a_snapshot_gets_the_membership_with_it() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    changed(cluster, 1, "learner 4")
    cluster.propose(1, b"a")
    cluster.settle()
    leader.flush(leader.applied_index)
    leader.compact(leader.applied_index)
    cluster.change(1, "voter 5")
    cluster.settle()
    cluster.join(5)
    cluster.wait(2 * HEARTBEAT_S)
    cluster.transfer_snapshot(1)
    cluster.wait(2 * HEARTBEAT_S)
    assert of(cluster[5]) == membership(1, 2, 3, 5, learners=(4,))
    assert cluster[5].raft.status().commit == leader.raft.status().commit


def test_candidate_asks_only_the_voters_that_it_goes_by() -> None:
    cluster = Cluster([1, 2], [3])
    cluster.tick(1)
    cluster.deliver()
    cluster.deliver()
    cluster.sync()
    assert [(type(message), message.recipient) for message in cluster.network] == [(VoteRequest, 2)]


def test_vote_for_a_stranger_is_durable_like_any_other() -> None:
    cluster = Cluster()
    cluster.arrive(vote_request(4, (0, 0), sender=8))
    assert cluster.network == []
    cluster.sync()
    assert cluster.take() == [voted(8, 4, True)]
    cluster.crash(1)
    cluster.restart(1)
    assert cluster[1].raft.status().vote == 8
