"""Members come, go, and hand over the leadership, under real writes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from etcray.node.api import Outcome, TransferRequest, encode
from etcray.spec import Timing
from etcray_storage.commands import CommandKind, MemberAdd, MemberPromote, MemberRemove, encode_batch
from etcray_storage.errors import (
    BAD_LEADER_TRANSFEREE,
    LEARNER_NOT_READY,
    MEMBER_EXIST,
    MEMBER_NOT_ENOUGH_STARTED,
    MEMBER_NOT_FOUND,
    TIMEOUT,
    TOO_MANY_LEARNERS,
    UNHEALTHY,
    QuarantinedError,
)
from etcray_storage.types import MemberId, Membership
from tests.node.local_cluster import LocalCluster, member_spec, put_batch, wait_for

SESSION = 11
CALM = Timing(heartbeat_ms=50, election_ms=1000)
"""On a busy machine a member may be silent for longer than the usual time-out of these tests, and the rules
would rightly refuse a change then."""


class Writer:
    """Puts one number after the other, and remembers which revisions were answered."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered: list[int] = []
        cluster.open_session(SESSION)

    def _run(self) -> None:
        sequence = 0
        while not self._done.is_set():
            sequence += 1
            batch = put_batch(SESSION, sequence, {b"n": b"%d" % sequence}, acknowledged=sequence - 1)
            reply = self._cluster.propose(batch)
            assert reply.answer is not None
            assert reply.answer.errors == [0]
            self.answered.extend(reply.answer.revisions)

    def progress(self, count: int = 10) -> None:
        """Wait until that many more writes are answered."""
        enough = len(self.answered) + count
        while len(self.answered) < enough:
            assert self._thread.is_alive()
            time.sleep(0.005)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join()
        # One put each, in order: a lost one or one that was applied twice would leave a hole.
        assert self.answered == list(range(2, 2 + len(self.answered)))
        assert self._cluster.wait_until_equal() == {b"n": b"%d" % len(self.answered)}


def membership_of(cluster: LocalCluster) -> Membership:
    """What all members that run agree on, once they do."""

    def agreed() -> Membership | None:
        views = {member.status().membership for member in cluster.board.members.values()}
        return views.pop() if len(views) == 1 else None

    return wait_for(agreed, "one membership everywhere")


def voters(*ids: MemberId) -> Membership:
    return Membership(voters=tuple(sorted(ids)))


def test_a_cluster_grows_from_one_to_three_to_five_and_shrinks_again_under_writes(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1, timing=CALM) as cluster:
        first = cluster.spec.members[0].id
        with Writer(cluster).writing() as writer:
            added = []
            for number in range(2, 6):
                added.append(cluster.grow(f"m{number}"))
                writer.progress()
            assert membership_of(cluster) == voters(first, *added)
            for gone in (first, *added[:3]):
                assert cluster.remove(gone) == 0
                cluster.wait_until_removed(gone)
                cluster.stop(gone)
                writer.progress()
            assert membership_of(cluster) == voters(added[3])


def test_a_leader_that_is_removed_under_writes_steps_down_and_nothing_is_lost(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster, Writer(cluster).writing() as writer:
        writer.progress()
        leader = cluster.leader()
        assert cluster.remove(leader.spec.id) == 0
        wait_for(lambda: leader.status().role != "leader" or None, "a leader that steps down")
        cluster.wait_until_removed(leader.spec.id)
        writer.progress()
        assert cluster.leader() is not leader
        assert leader.spec.id not in cluster.leader().status().membership.voters
        cluster.stop(leader.spec.id)
        writer.progress()


def test_a_member_that_joins_late_is_brought_up_by_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path, nodes=1, timing=CALM) as cluster:
        cluster.open_session(SESSION)
        expected = {}
        for sequence in range(1, 61):
            cluster.put(SESSION, sequence, b"key%d" % sequence, b"value")
            expected[b"key%d" % sequence] = b"value"
        second = cluster.grow("m2")

        def trimmed() -> bool | None:
            opened = cluster.leader()._opened
            assert opened is not None
            return opened.log.base_index > 40 or None

        wait_for(trimmed, "a trimmed log")
        third = cluster.grow("m3")
        assert cluster.wait_until_equal() == expected
        assert membership_of(cluster) == voters(cluster.spec.members[0].id, second, third)
        # The list of members came with the snapshot, and survives a restart.
        names = [member.name for member in cluster.leader().status().members]
        cluster.stop(third)
        cluster.start(third)
        cluster.put(SESSION, 61, b"key61", b"value")
        cluster.wait_until_equal()
        status = cluster.board.members[third].status()
        assert [member.name for member in status.members] == names
        assert sorted(names) == ["m1", "m2", "m3"]


def test_a_learner_that_is_not_ready_is_not_promoted(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        cluster.open_session(SESSION)
        learner = cluster.add("m4", start=False)
        for sequence in range(1, 31):
            cluster.put(SESSION, sequence, b"key", b"%d" % sequence)
        promote = MemberPromote(learner)
        assert cluster.change(CommandKind.MEMBER_PROMOTE, promote) == LEARNER_NOT_READY.number
        assert cluster.add_error("m5", learner=True) == TOO_MANY_LEARNERS.number
        cluster.start(learner)
        cluster.promote(learner)
        assert learner in membership_of(cluster).voters


def test_a_learner_gets_everything_and_does_not_count(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        cluster.open_session(SESSION)
        learner = cluster.add("m4")
        cluster.put(SESSION, 1, b"key", b"value")
        assert cluster.wait_until_equal() == {b"key": b"value"}
        status = cluster.board.members[learner].status()
        assert status.is_learner
        assert status.role == "follower"
        cluster.isolate(learner)
        cluster.put(SESSION, 2, b"key", b"other")
        cluster.heal()
        assert cluster.wait_until_equal() == {b"key": b"other"}


def test_changes_that_would_endanger_the_quorum_are_refused(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        leader = cluster.leader().spec.id
        down, other = (member.id for member in cluster.spec.members if member.id != leader)
        cluster.stop(down)
        time.sleep(0.5)  # more than two election timeouts: the leader has given up on it
        assert cluster.add_error("m4", learner=False) == UNHEALTHY.number
        assert cluster.remove(other) == UNHEALTHY.number
        assert cluster.remove(down) == 0  # it was not there anyway
        assert membership_of(cluster) == voters(leader, other)


def test_a_member_cannot_be_added_twice_and_a_removed_one_not_again(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        victim = next(m for m in cluster.spec.members if m.id != cluster.leader().spec.id)
        again = MemberAdd(victim.id, "", ("ray://test/again",), False)
        assert cluster.change(CommandKind.MEMBER_ADD, again) == MEMBER_EXIST.number
        assert cluster.remove(victim.id) == 0
        assert cluster.change(CommandKind.MEMBER_ADD, again) == MEMBER_NOT_FOUND.number
        assert cluster.remove(victim.id) == MEMBER_NOT_FOUND.number


def is_called(member: MemberId) -> bool:
    """Whether some member still tries to bring something to this one, until a call fails."""
    return any(thread.name == f"sender-{member:x}" for thread in threading.enumerate())


def test_a_removed_member_that_missed_it_all_is_told_and_disturbs_nobody(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        cluster.open_session(SESSION)
        leader = cluster.leader()
        absent = next(m.id for m in cluster.spec.members if m.id != leader.spec.id)
        cluster.stop(absent)
        assert cluster.remove(absent) == 0
        term = cluster.leader().status().term
        wait_for(lambda: not is_called(absent) or None, "nobody has anything left to tell it")
        cluster.start(absent)
        returned = cluster.board.members[absent]
        cluster.wait_until_removed(absent)
        assert absent in returned.status().membership.voters  # as far as it has applied
        cluster.put(SESSION, 1, b"key", b"value")
        assert cluster.leader().status().term == term
        reply = returned.propose(encode_batch(put_batch(SESSION, 2, {b"a": b"b"})))
        assert reply.outcome is Outcome.NOT_LEADER


def test_a_change_that_is_asked_for_again_after_its_answer_was_lost_is_not_refused(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        victim = next(m for m in cluster.spec.members if m.id != cluster.leader().spec.id)
        batch = cluster.change_batch(CommandKind.MEMBER_REMOVE, MemberRemove(victim.id))
        first, second = cluster.propose(batch), cluster.propose(batch)
        assert first.answer == second.answer
        assert first.answer is not None
        assert first.answer.errors == [0]


def test_an_addition_that_is_asked_for_again_is_not_refused_because_the_new_voter_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        addition = MemberAdd(MemberId(77), "", ("http://new:2380",), False)
        batch = cluster.change_batch(CommandKind.MEMBER_ADD, addition)
        first = cluster.propose(batch)
        monkeypatch.setattr(
            "etcray.node.calls.MEMBERS_HEALTHY_ELECTION_TIMEOUTS", 0
        )  # nobody was heard since
        second = cluster.propose(batch)
        assert first.answer == second.answer
        assert first.answer is not None
        assert first.answer.errors == [0]


def test_the_last_voter_stays(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1, timing=CALM) as cluster:
        assert cluster.remove(cluster.spec.members[0].id) == MEMBER_NOT_ENOUGH_STARTED.number


def test_transfers_under_writes_lose_nothing(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster, Writer(cluster).writing() as writer:
        for _ in range(4):
            writer.progress()
            leader = cluster.leader()
            target = next(m.id for m in cluster.spec.members if m.id != leader.spec.id)
            reply = leader.transfer_leadership(encode(TransferRequest(target)))
            assert (reply.outcome, reply.error, reply.leader) == (Outcome.ANSWERED, 0, target)
            assert cluster.leader().spec.id == target


def test_a_transfer_to_nobody_or_to_a_silent_member_leaves_the_leader(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        leader = cluster.leader()
        silent, follower = (m.id for m in cluster.spec.members if m.id != leader.spec.id)
        cluster.wait_until_equal()

        def transfer(to: int, asked: MemberId = leader.spec.id) -> tuple[Outcome, int]:
            reply = cluster.board.members[asked].transfer_leadership(encode(TransferRequest(MemberId(to))))
            return reply.outcome, reply.error

        assert transfer(12345) == (Outcome.ANSWERED, BAD_LEADER_TRANSFEREE.number)
        assert transfer(leader.spec.id) == (Outcome.ANSWERED, 0)
        assert transfer(leader.spec.id, asked=follower) == (Outcome.NOT_LEADER, 0)
        cluster.isolate(silent)
        assert transfer(silent) == (Outcome.ANSWERED, TIMEOUT.number)
        cluster.open_session(SESSION)
        cluster.put(SESSION, 1, b"key", b"value")


def test_a_leader_that_is_stopped_hands_over_without_an_election_timeout(tmp_path: Path) -> None:
    """The others would wait for five minutes otherwise."""
    patient = Timing(heartbeat_ms=50, election_ms=300_000)
    with LocalCluster(tmp_path, timing=patient) as cluster:
        cluster.campaign(cluster.spec.members[0].id)
        cluster.open_session(SESSION)
        stopped = cluster.leader().spec.id
        cluster.stop(stopped)
        assert cluster.put(SESSION, 1, b"key", b"value").member != stopped


def test_a_joining_member_may_be_empty_and_any_other_may_not(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=CALM) as cluster:
        joined = cluster.grow("m4")
        cluster.stop(joined)
        shutil.rmtree(tmp_path / "m4")
        settled = tuple(msgspec.structs.replace(member, joining=False) for member in cluster.spec.members)
        cluster.spec = msgspec.structs.replace(cluster.spec, members=settled)
        with pytest.raises(QuarantinedError, match="has lost the data"):
            cluster.start(joined)
        assert member_spec(tmp_path, "m4").id == joined
