"""Reads find somebody who may answer them, and are never stale when they must not be."""

from __future__ import annotations

import random

import pytest

from etcray.gateway.delivery import SILENCE_SECONDS, Delivery, Lane
from etcray.gateway.proposals import REQUEST_SECONDS_MAX
from etcray.gateway.reads import Reads
from etcray.node import api
from etcray_storage import limits
from etcray_storage.commands import ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.types import Term
from tests.gateway.simulated_cluster import MEMBERS, SimulatedCluster


def test_linearizable_reads_follow_the_leader() -> None:
    sim = SimulatedCluster(random.Random(1))
    sim.put("a")
    sim.run_until_settled(1)
    sim.get("a", "one")
    sim.run_until_settled(2)
    sim.elect(MEMBERS[1])
    sim.get("a", "two")
    sim.run_until_settled(3)
    reads = [send for send in sim.sends if send.lane is Lane.READ_LINEARIZABLE]
    assert [send.member for send in reads] == [MEMBERS[0], MEMBERS[0], MEMBERS[1]]
    assert all(api.decode_read_request(send.data).linearizable for send in reads)
    assert sim.settled["two"].error is None


def test_reads_of_one_moment_travel_together() -> None:
    sim = SimulatedCluster(random.Random(1))
    for ticket in range(100):
        sim.get("a", ticket)
    sim.run_until_settled(100)
    assert len(sim.sends) == 1


def test_second_answer_to_one_batch_changes_nothing() -> None:
    delivery = Delivery(MEMBERS)
    reads = Reads(delivery, linearizable=False)
    reads.submit(0.0, ReadKind.RANGE, b"", "ticket")
    reads.advance(0.0)
    (send,) = delivery.sends(0.0)
    reply = api.ReadReply(api.Outcome.ANSWERED, MEMBERS[0], Term(1), send.member, [5], [0], [b"body"])
    assert [one.body for one in reads.answered(0.0, send.parcel, reply)] == [b"body"]
    assert reads.answered(0.0, send.parcel, reply) == []
    assert reads.pending_count == 0


def test_serializable_reads_stay_with_one_member_until_it_is_silent() -> None:
    delivery = Delivery(MEMBERS)
    reads = Reads(delivery, linearizable=False)
    reads.submit(0.0, ReadKind.RANGE, b"", "ticket")
    reads.advance(0.0)
    (first,) = delivery.sends(0.0)
    delivery.tick(SILENCE_SECONDS / 2)
    assert delivery.sends(SILENCE_SECONDS / 2) == []
    delivery.tick(SILENCE_SECONDS)
    (second,) = delivery.sends(SILENCE_SECONDS)
    assert second.member != first.member
    delivery.unreachable(SILENCE_SECONDS, second)
    (third,) = delivery.sends(SILENCE_SECONDS)
    assert third.member not in (first.member, second.member)


def test_read_that_nobody_answers_times_out() -> None:
    sim = SimulatedCluster(random.Random(1))
    sim.dead = set(MEMBERS)
    sim.get("a", "ticket")
    sim.advance()
    sim.pass_time(REQUEST_SECONDS_MAX)
    error = sim.settled["ticket"].error
    assert error is not None
    assert error.message == "etcdserver: request timed out"
    assert sim.reads.pending_count == 0


def test_reads_over_the_limit_are_refused() -> None:
    reads = Reads(Delivery(MEMBERS), linearizable=True)
    for number in range(limits.READS_PENDING_MAX):
        reads.submit(0.0, ReadKind.RANGE, b"", number)
    with pytest.raises(EtcdError, match="too many requests"):
        reads.submit(0.0, ReadKind.RANGE, b"", "one more")


def test_parcels_of_a_removed_member_go_elsewhere() -> None:
    delivery = Delivery(MEMBERS)
    delivery.heard(MEMBERS[0], MEMBERS[0], Term(1))
    delivery.add(Lane.READ_LINEARIZABLE, b"")
    (first,) = delivery.sends(0.0)
    delivery.set_members(MEMBERS[1:])
    assert delivery.sends(0.0) == [], "nobody leads yet"
    delivery.heard(MEMBERS[1], MEMBERS[1], Term(2))
    (second,) = delivery.sends(0.0)
    assert (first.member, second.member) == (MEMBERS[0], MEMBERS[1])
