"""Alarms that the cluster raises itself: a member that diverges, a disk that fills up."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcray.node.opened import OpenMember
from etcray_storage.commands import Batch, CommandKind
from etcray_storage.errors import CORRUPT as CORRUPT_ERROR
from etcray_storage.errors import NO_SPACE
from etcray_storage.limits import DISK_FREE_ENOUGH_BYTES, DISK_FREE_LOW_BYTES
from etcray_storage.proto.rpc_pb2 import CORRUPT, NOSPACE, AlarmRequest
from etcray_storage.types import NOBODY, MemberId
from tests.node.local_cluster import LocalCluster, wait_for

SESSION = 21


class Puts:
    """A client that puts, and says which error it got."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._sequence = 0
        cluster.open_session(SESSION)

    def put(self, key: bytes = b"key", value: bytes = b"value") -> int:
        self._sequence += 1
        answer = self._cluster.put(SESSION, self._sequence, key, value).answer
        assert answer is not None
        return answer.errors[0]

    def alarm(self, action: AlarmRequest.AlarmAction, member: MemberId) -> None:
        self._sequence += 1
        request = AlarmRequest(action=action, memberID=member, alarm=NOSPACE).SerializeToString()
        batch = Batch(SESSION, self._sequence, 0, bytes([CommandKind.ALARM]), [request])
        answer = self._cluster.propose(batch).answer
        assert answer is not None
        assert answer.errors == [0]


def wait_for_alarms(cluster: LocalCluster, *expected: tuple[MemberId, int]) -> None:
    def raised() -> bool | None:
        return all(member.status().alarms == expected for member in cluster.board.members.values()) or None

    wait_for(raised, f"alarms {expected} at all members")


def opened(cluster: LocalCluster, member: MemberId) -> OpenMember:
    found = cluster.board.members[member]._opened
    assert found is not None
    return found


def plant_divergence(cluster: LocalCluster, member: MemberId) -> None:
    """Let one member's machine have a clock of its own: a state that the log does not explain."""
    applier = opened(cluster, member).applier
    with applier.state:
        clock = applier.machine._clock
        clock.advance(clock.time_ms + 600_000)


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_the_member_that_diverges_is_named_and_writing_stops(tmp_path: Path, who: str) -> None:
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        assert puts.put() == 0
        leader = cluster.leader().spec.id
        follower = next(member.id for member in cluster.spec.members if member.id != leader)
        odd = leader if who == "leader" else follower
        cluster.wait_until_equal()
        plant_divergence(cluster, odd)
        assert puts.put() == 0  # nothing has touched the difference before
        wait_for_alarms(cluster, (odd, CORRUPT))
        assert puts.put() == CORRUPT_ERROR.number
        assert [m.spec.id for m in cluster.board.members.values() if m.status().corrupt] == [odd]
        assert cluster.get(b"key") == b"value"


def test_of_two_members_that_differ_neither_is_named(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=2) as cluster:
        puts = Puts(cluster)
        assert puts.put() == 0
        cluster.wait_until_equal()
        plant_divergence(cluster, cluster.spec.members[0].id)
        puts.put()
        wait_for_alarms(cluster, (NOBODY, CORRUPT))


def test_members_that_restart_or_come_by_snapshot_have_the_hash_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        for number in range(30):
            assert puts.put(value=b"%d" % number) == 0
        stopped = next(m.id for m in cluster.spec.members if m.id != cluster.leader().spec.id)
        cluster.stop(stopped)
        cluster.start(stopped)
        cluster.grow("m4")
        assert puts.put() == 0
        cluster.wait_until_equal()
        hashes = {m.status().state_hash for m in cluster.board.members.values()}
        assert len(hashes) == 1
        assert hashes != {0}
        assert cluster.leader().status().alarms == ()


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_puts_are_refused_before_a_disk_is_full_and_taken_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr("etcray.node.opened.DISK_LOOK_SECONDS", 0.1)
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        assert puts.put() == 0
        leader = cluster.leader().spec.id
        full = leader if who == "leader" else next(m.id for m in cluster.spec.members if m.id != leader)
        cluster.room[full] = DISK_FREE_LOW_BYTES - 1
        wait_for_alarms(cluster, (full, NOSPACE))
        assert puts.put() == NO_SPACE.number
        assert cluster.get(b"key") == b"value"
        cluster.room[full] = DISK_FREE_LOW_BYTES + 1  # between the marks nothing changes
        wait_for(
            lambda: cluster.board.members[full].status().free_bytes > DISK_FREE_LOW_BYTES or None, "a look"
        )
        assert puts.put() == NO_SPACE.number
        cluster.room[full] = DISK_FREE_ENOUGH_BYTES
        wait_for_alarms(cluster)
        assert puts.put() == 0


def test_an_alarm_that_was_raised_by_hand_is_only_taken_back_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.DISK_LOOK_SECONDS", 0.1)
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        member = cluster.spec.members[0].id
        cluster.room[member] = 0
        wait_for_alarms(cluster, (member, NOSPACE))
        puts.alarm(AlarmRequest.ACTIVATE, member)
        cluster.room[member] = DISK_FREE_ENOUGH_BYTES
        wait_for(lambda: not cluster.board.members[member].status().low_on_space or None, "room")
        for _ in range(30):  # three seconds of looks in a hurry
            opened(cluster, cluster.leader().spec.id).replica.alarms.do_round()
        assert puts.put() == NO_SPACE.number
        puts.alarm(AlarmRequest.DEACTIVATE, member)
        wait_for_alarms(cluster)
        assert puts.put() == 0


def test_an_alarm_that_is_taken_back_by_hand_while_there_is_no_room_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.DISK_LOOK_SECONDS", 0.1)
    monkeypatch.setattr("etcray.node.alarms.REPEAT_SECONDS", 0.1)
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        member = cluster.spec.members[0].id
        cluster.room[member] = 0
        wait_for_alarms(cluster, (member, NOSPACE))
        before = cluster.leader().status().applied_index
        puts.alarm(AlarmRequest.DEACTIVATE, member)
        wait_for(lambda: cluster.leader().status().applied_index >= before + 2 or None, "a second report")
        wait_for_alarms(cluster, (member, NOSPACE))


def test_the_alarm_of_a_full_member_goes_with_the_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.DISK_LOOK_SECONDS", 0.1)
    with LocalCluster(tmp_path) as cluster:
        puts = Puts(cluster)
        full = next(m.id for m in cluster.spec.members if m.id != cluster.leader().spec.id)
        cluster.room[full] = 0
        wait_for_alarms(cluster, (full, NOSPACE))
        assert cluster.remove(full) == 0
        cluster.stop(full)
        wait_for_alarms(cluster)
        assert puts.put() == 0
