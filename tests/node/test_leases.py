"""Leases on real members: who ends them, who keeps them alive, and what a leader change does."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray.node.actor import calm_collector
from etcray.node.api import KeepAliveReply, KeepAliveRequest, Outcome, ReadReply, ReadRequest, encode
from etcray.node.member import Member
from etcray.node.opened import OpenMember
from etcray.raft.errors import NotLeaderError
from etcray.spec import Timing
from etcray_storage.commands import Batch, CommandKind, ReadKind
from etcray_storage.limits import LEASE_CHECKPOINT_SECONDS_MIN, LEASE_ROUND_SECONDS
from etcray_storage.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
)
from etcray_storage.types import Term
from tests.node.local_cluster import LocalCluster, wait_for

SESSION = 77


class Client:
    """A gateway's part, for leases."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._sequence = 0
        cluster.open_session(SESSION)

    def run(self, kind: CommandKind, requests: list[bytes]) -> list[bytes]:
        self._sequence += 1
        kinds = bytes([kind]) * len(requests)
        reply = self.cluster.propose(Batch(SESSION, self._sequence, self._sequence - 1, kinds, requests))
        assert reply.answer is not None
        assert set(reply.answer.errors) == {0}, f"errors {set(reply.answer.errors)}"
        return reply.answer.bodies

    def grant(self, *leases: int, ttl_seconds: int) -> None:
        requests = [LeaseGrantRequest(ID=lease, TTL=ttl_seconds).SerializeToString() for lease in leases]
        for body in self.run(CommandKind.LEASE_GRANT, requests):
            response = LeaseGrantResponse.FromString(body)
            assert (response.error, response.TTL) == ("", ttl_seconds)

    def put(self, pairs: dict[bytes, int]) -> None:
        """Keys with their leases."""
        requests = [PutRequest(key=key, lease=lease).SerializeToString() for key, lease in pairs.items()]
        self.run(CommandKind.PUT, requests)

    def revoke(self, lease: int) -> None:
        self.run(CommandKind.LEASE_REVOKE, [LeaseRevokeRequest(ID=lease).SerializeToString()])

    def keep_alive(self, *leases: int) -> list[int]:
        """Ask until whoever leads answers, as a gateway does."""
        request = encode(KeepAliveRequest(list(leases)))

        def attempt() -> KeepAliveReply | None:
            try:
                reply = self.cluster.leader().keep_alive(request)
            except RuntimeError:
                return None
            return reply if reply.outcome is Outcome.ANSWERED else None

        return wait_for(attempt, "an answer to a renewal").ttls

    def time_to_live(self, lease: int) -> LeaseTimeToLiveResponse:
        request = LeaseTimeToLiveRequest(ID=lease, keys=True).SerializeToString()
        encoded = encode(ReadRequest(True, bytes([ReadKind.LEASE_TIME_TO_LIVE]), [request]))

        def attempt() -> ReadReply | None:
            reply = self.cluster.leader().read(encoded)
            return reply if reply.outcome is Outcome.ANSWERED else None

        reply = wait_for(attempt, "a time to live")
        assert reply.errors == [0]
        return LeaseTimeToLiveResponse.FromString(reply.bodies[0])

    def wait_until_ended(self, lease: int) -> None:
        wait_for(lambda: self.time_to_live(lease).TTL == -1 or None, f"the end of lease {lease}")


def opened(member: Member) -> OpenMember:
    assert member._opened is not None
    return member._opened


def change_leader(cluster: LocalCluster) -> None:
    """Cut the leader off until another one leads."""
    cluster.isolate(cluster.leader().spec.id)
    cluster.leader()
    cluster.heal()


def test_a_lease_that_is_not_renewed_ends_on_all_members_with_its_keys(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        began = time.monotonic()
        client.grant(1, 2, ttl_seconds=2)
        client.grant(3, ttl_seconds=600)
        client.put({b"a": 1, b"b": 1, b"c": 2, b"d": 3, b"e": 0})
        client.put({b"b": 3})
        assert cluster.wait_until_equal() == {b"a": b"", b"b": b"", b"c": b"", b"d": b"", b"e": b""}
        client.wait_until_ended(1)
        assert time.monotonic() - began >= 2
        client.wait_until_ended(2)
        assert cluster.wait_until_equal() == {b"b": b"", b"d": b"", b"e": b""}
        # One revision for each lease, whatever the number of its keys.
        assert cluster.leader().status().revision == 1 + 5 + 1 + 2


def test_renewals_keep_a_lease_alive_and_others_answer_0(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=2)
        client.grant(2, ttl_seconds=600)
        client.put({b"a": 1})
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            assert client.keep_alive(1, 2, 99) == [2, 600, 0]
            time.sleep(0.3)
        assert client.time_to_live(1).keys == [b"a"]
        client.revoke(1)
        assert client.keep_alive(1, 2) == [0, 600]
        assert cluster.wait_until_equal() == {}


def test_the_leader_tells_the_seconds_that_are_left(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=600)
        client.put({b"b": 1, b"a": 1})
        time.sleep(1.1)
        found = client.time_to_live(1)
        assert (found.ID, found.grantedTTL, list(found.keys)) == (1, 600, [b"a", b"b"])
        assert found.TTL < 599
        assert client.keep_alive(1) == [600]
        assert client.time_to_live(1).TTL > found.TTL
        unknown = client.time_to_live(5)
        assert (unknown.ID, unknown.TTL, unknown.grantedTTL) == (5, -1, 0)


def test_only_the_leader_renews(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=600)
        leader = cluster.leader()
        cluster.wait_until_equal()
        for member in cluster.board.members.values():
            if member is not leader:
                reply = member.keep_alive(encode(KeepAliveRequest([1])))
                assert (reply.outcome, reply.leader) == (Outcome.NOT_LEADER, leader.spec.id)


def test_a_lease_survives_a_leader_change_and_ends_under_the_new_leader(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        began = time.monotonic()
        client.grant(1, ttl_seconds=3)
        client.put({b"a": 1})
        change_leader(cluster)
        renewed = client.keep_alive(1)
        client.wait_until_ended(1)
        assert renewed == [3]
        assert time.monotonic() - began >= 3
        assert cluster.wait_until_equal() == {}


def test_a_renewed_lease_lives_its_whole_ttl_although_a_checkpoint_said_less(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=3)

        def recorded_ms() -> int:
            lease = opened(cluster.leader()).applier.machine.leases.get(1)
            assert lease is not None
            return lease.remaining_ms

        wait_for(lambda: recorded_ms() < 2_000 or None, "a checkpoint")
        renewed = time.monotonic()
        assert client.keep_alive(1) == [3]
        assert recorded_ms() == 3_000
        change_leader(cluster)
        client.wait_until_ended(1)
        assert time.monotonic() - renewed >= 3


def test_an_isolated_leader_does_not_end_a_lease_that_is_renewed_at_the_new_one(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, timing=Timing(heartbeat_ms=50, election_ms=1500)) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=600)
        client.put({b"a": 1})
        cluster.wait_until_equal()
        old = cluster.leader()
        before = old.status()
        cluster.isolate(old.spec.id)
        opened(old).replica.leases._clock = lambda: time.monotonic() + 1_000
        wait_for(
            lambda: old.status().last_index > before.last_index or None, "the end in the old leader's log"
        )
        assert client.keep_alive(1) == [600]
        assert cluster.leader() is not old
        assert old.keep_alive(encode(KeepAliveRequest([1]))).outcome is Outcome.NOT_LEADER
        cluster.heal()
        assert client.keep_alive(1) == [600]
        assert cluster.wait_until_equal() == {b"a": b""}
        assert opened(old).applier.machine.leases.get(1) is not None


def test_what_was_decided_in_one_term_cannot_be_proposed_in_another(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        leader = opened(cluster.leader())
        term = leader.driver.soft_state.term
        for other in (term - 1, term + 1):
            with pytest.raises(NotLeaderError):
                leader.driver.propose(b"", Term(other))


def test_leases_are_there_after_all_members_were_stopped(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        client.grant(1, ttl_seconds=2)
        client.grant(2, ttl_seconds=600)
        client.put({b"a": 1, b"b": 2})
        for member in list(cluster.board.members):
            cluster.stop(member)
        for spec in cluster.spec.members:
            cluster.start(spec.id)
        client.wait_until_ended(1)
        assert cluster.wait_until_equal() == {b"b": b""}
        found = client.time_to_live(2)
        assert (found.grantedTTL, list(found.keys)) == (600, [b"b"])


def test_over_twenty_leader_changes_no_lease_ends_early_and_none_lives_forever(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        ttls = {1: 2, 2: 4, 3: 8, 4: 12}
        granted: dict[int, float] = {}
        for lease, ttl_seconds in ttls.items():
            granted[lease] = time.monotonic()
            client.grant(lease, ttl_seconds=ttl_seconds)
        client.grant(9, ttl_seconds=3)
        client.put({b"1": 1, b"2": 2, b"3": 3, b"4": 4, b"9": 9})
        for _ in range(20):
            change_leader(cluster)
            assert client.keep_alive(9) == [3], "a renewed lease ended"
            time.sleep(0.1)
            for lease, ttl_seconds in ttls.items():
                is_over = client.time_to_live(lease).TTL == -1
                assert not is_over or time.monotonic() - granted[lease] >= ttl_seconds
        for lease in ttls:
            client.wait_until_ended(lease)
        client.wait_until_ended(9)
        assert cluster.wait_until_equal() == {}


def test_over_twenty_leader_changes_a_lease_lives_no_longer_than_is_stated(tmp_path: Path) -> None:
    """The bound of `lessor`, on real members: leaders change every half of a TTL. The time without a
    leader is part of the bound, and taken from the clock, as is what a slow machine adds to a call."""
    ttl_seconds = 2
    interval = max(ttl_seconds / 8, LEASE_CHECKPOINT_SECONDS_MIN)
    with LocalCluster(tmp_path) as cluster:
        client = Client(cluster)
        lease, ended = 0, 0
        granted = away = bound = 0.0
        term = cluster.leader().status().term
        for _ in range(20):
            if lease == ended:
                lease += 1
                client.grant(lease, ttl_seconds=ttl_seconds)
                granted, away, term = time.monotonic(), 0.0, cluster.leader().status().term
            time.sleep(ttl_seconds / 2)
            began = time.monotonic()
            change_leader(cluster)
            is_over = client.time_to_live(lease).TTL == -1
            now = time.monotonic()
            away += now - began
            if is_over:
                assert now - granted >= ttl_seconds
                ended = lease
                continue
            changes = cluster.leader().status().term - term
            bound = ttl_seconds * 1.5 + changes * (interval + LEASE_ROUND_SECONDS) + away
            bound += cluster.spec.timing.election_ms / 1000 + LEASE_ROUND_SECONDS
            assert now - granted <= bound
        assert ended >= 2, "the bound was hardly tried"


ATTEMPTS = 3
"""Somebody else's work may keep the processor from a member for an election timeout; hardly each time."""


@pytest.fixture
def collector_of_a_member() -> Iterator[None]:
    """The garbage collector as it is in a member's own process. That of a process full of tests stops all
    three members at once, for 0.25 s of an election timeout of 0.6 at each full collection."""
    thresholds = gc.get_threshold()
    calm_collector()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("collector_of_a_member")
def test_ten_thousand_leases_that_end_together_cost_no_election(tmp_path: Path) -> None:
    # With the timers of real clusters: the other tests' are shorter than a busy process may pause, and
    # here three members share one.
    with LocalCluster(tmp_path, timing=Timing()) as cluster:
        client = Client(cluster)
        elections = [_elections_while_leases_end(cluster, client, 10_000)]
        while elections[-1] and len(elections) < ATTEMPTS:
            elections.append(_elections_while_leases_end(cluster, client, 10_000))
        assert elections[-1] == 0, f"there were {elections} elections in {len(elections)} attempts"
        assert cluster.wait_until_equal() == {}


def _elections_while_leases_end(cluster: LocalCluster, client: Client, count: int) -> int:
    leases = list(range(1, count + 1))
    ended = cluster.leader().status().revision + 2 * count  # a put and an end for each
    for start in range(0, count, 1_000):
        piece = leases[start : start + 1_000]
        client.grant(*piece, ttl_seconds=6)
        client.put({b"%d" % lease: lease for lease in piece})
    before = cluster.leader().status().term
    wait_for(lambda: cluster.leader().status().revision == ended or None, "the last end")
    return cluster.leader().status().term - before
