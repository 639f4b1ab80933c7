"""Each command is applied exactly once, whatever happens to calls, replies and leaders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.gateway.delivery import RESEND_SECONDS, SILENCE_SECONDS, Lane
from etcray.gateway.gathering import FURTHER_COMMANDS_MIN
from etcray.gateway.proposals import REQUEST_SECONDS_MAX
from etcray_storage import commands, limits
from etcray_storage.commands import CommandKind
from etcray_storage.errors import Code, EtcdError
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.simulated_cluster import MEMBERS, SimulatedCluster


def cluster() -> SimulatedCluster:
    return SimulatedCluster(random.Random(7))


def opened() -> SimulatedCluster:
    """With an open session and a known leader."""
    sim = cluster()
    sim.put("first")
    sim.run_until_settled(1)
    sim.sends.clear()
    return sim


def test_session_is_opened_before_the_first_batch() -> None:
    sim = cluster()
    sim.delivery.heard(MEMBERS[0], MEMBERS[0], sim.term)
    sim.put("a")
    sim.advance()
    assert len(sim.sends) == 1, "calls may overtake each other: the batch waits for the answer"
    sim.run_until_settled(1)
    batches = [commands.decode_batch(send.data) for send in sim.sends]
    assert [batch.sequence for batch in batches] == [0, 1]
    assert batches[0].session == batches[1].session != 0


def test_idle_gateway_sends_at_once_and_busy_gateway_gathers() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    for number in range(FURTHER_COMMANDS_MIN - 1):
        sim.put(f"b{number}")
    sim.advance()
    assert len(sim.sends) == 1
    sim.run_until_settled(1 + FURTHER_COMMANDS_MIN)
    assert [len(commands.decode_batch(send.data).requests) for send in sim.sends] == [
        1,
        FURTHER_COMMANDS_MIN - 1,
    ]


def test_at_most_so_many_batches_are_in_flight() -> None:
    sim = opened()
    sim.put("0")
    sim.advance()
    for wave in range(limits.BATCHES_IN_FLIGHT_MAX + 1):
        for number in range(FURTHER_COMMANDS_MIN * 2**wave):
            sim.put(f"{wave}/{number}")
        sim.advance()
    assert len(sim.sends) == limits.BATCHES_IN_FLIGHT_MAX


def test_batch_is_closed_by_its_size() -> None:
    sim = opened()
    big = b"x" * (limits.BATCH_BYTES_MAX // 2)
    for ticket in range(3):
        sim.proposals.submit(sim.now, CommandKind.PUT, big, ticket)
    sim.advance()
    assert len(commands.decode_batch(sim.sends[0].data).requests) == 2


def test_commands_over_the_limit_are_refused() -> None:
    sim = opened()
    for number in range(limits.PROPOSALS_PENDING_MAX):
        sim.proposals.submit(sim.now, CommandKind.PUT, b"", number)
    with pytest.raises(EtcdError, match="too many requests"):
        sim.put("one more")


def test_commands_over_the_limit_of_bytes_are_refused_until_some_are_answered() -> None:
    sim = opened()
    request = rpc.PutRequest(key=b"k", value=b"x" * limits.REQUEST_BYTES_MAX).SerializeToString()
    taken = limits.PENDING_BYTES_MAX // len(request)
    for number in range(taken):
        sim.proposals.submit(sim.now, CommandKind.PUT, request, number)
    with pytest.raises(EtcdError, match="too many requests"):
        sim.proposals.submit(sim.now, CommandKind.PUT, request, "one more")
    sim.pass_time(REQUEST_SECONDS_MAX)
    assert len(sim.settled) == 1 + taken
    sim.put("small")
    sim.run_until_settled(2 + taken)
    assert sim.settled["small"].error is None


def test_acknowledged_rises_only_over_answered_batches() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    stuck = sim.sends[0]
    sim.on_the_way.clear()
    for number in range(FURTHER_COMMANDS_MIN):
        sim.put(f"b{number}")
    sim.run_until_settled(1 + FURTHER_COMMANDS_MIN)
    for number in range(FURTHER_COMMANDS_MIN):
        sim.put(f"c{number}")
    sim.run_until_settled(1 + 2 * FURTHER_COMMANDS_MIN)
    sequence = commands.decode_batch(stuck.data).sequence
    behind = [commands.decode_batch(send.data) for send in sim.sends[1:]]
    assert [batch.sequence for batch in behind] == [sequence + 1, sequence + 2]
    assert [batch.acknowledged for batch in behind] == [sequence - 1, sequence - 1]
    sim.pass_time(RESEND_SECONDS)
    sim.run_until_settled(2 + 2 * FURTHER_COMMANDS_MIN)
    assert sim.version_of("a") == 1


def test_lost_reply_is_asked_for_again_and_applied_once() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    sim.on_the_way.clear()
    silent_since = sim.now
    sim.arrive(sim.sends[0], lose_reply=True)
    sim.pass_time(SILENCE_SECONDS)
    sim.elect(MEMBERS[2])
    sim.run_until_settled(2)
    assert sim.applied_copies == 4  # the opening, the first key, and both copies
    assert sim.sends[0].data == sim.sends[1].data, "a batch is byte-identical in every attempt"
    assert sim.sends[1].member == MEMBERS[2]
    assert sim.now - silent_since < RESEND_SECONDS, "a new leader gets it at once"
    assert sim.version_of("a") == 1
    assert sim.settled["a"].revision == sim.mod_revision_of("a")


def test_not_leader_names_the_new_leader_and_the_batch_follows() -> None:
    sim = opened()
    sim.elect(MEMBERS[1])
    sim.put("a")
    sim.run_until_settled(2)
    assert [send.member for send in sim.sends] == [MEMBERS[0], MEMBERS[1]]


def test_dead_leader_is_replaced_without_an_error() -> None:
    sim = opened()
    sim.dead.add(MEMBERS[0])
    sim.put("a")
    for _ in range(20):
        sim.advance()
        sim.on_the_way, under_way = [], sim.on_the_way
        for deliver in under_way:
            deliver()
        sim.pass_time(0.05)
    assert not sim.settled.keys() - {"first"}
    sim.elect(MEMBERS[1])
    sim.run_until_settled(2)
    assert sim.settled["a"].error is None


def test_deposed_leader_that_still_claims_to_lead_is_not_believed() -> None:
    sim = opened()
    sim.delivery.heard(MEMBERS[1], MEMBERS[1], sim.term)
    assert sim.delivery.leader == MEMBERS[0], "two leaders in one term cannot be"
    sim.elect(MEMBERS[1])
    sim.delivery.heard(MEMBERS[1], MEMBERS[1], sim.term)
    assert sim.delivery.leader == MEMBERS[1]
    sim.delivery.heard(MEMBERS[0], MEMBERS[0], sim.term - 1)  # type: ignore[arg-type]
    assert sim.delivery.leader == MEMBERS[1]


def test_busy_leader_is_asked_again_after_a_pause() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    sim.on_the_way.clear()
    sim.delivery.busy(sim.now, sim.sends[0])
    sim.advance()
    assert len(sim.sends) == 1
    sim.run_until_settled(2)
    assert len(sim.sends) == 2


def test_command_that_nobody_answers_times_out_and_its_batch_is_still_finished() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    sim.on_the_way.clear()
    sim.pass_time(REQUEST_SECONDS_MAX)
    error = sim.settled["a"].error
    assert error is not None
    assert (error.code, error.message) == (Code.UNAVAILABLE, "etcdserver: request timed out")
    sim.put("b")
    sim.run_until_settled(3)
    assert sim.version_of("a") == 1, "the batch stays under way, because only then it can be acknowledged"
    assert sim.proposals.pending_count == 0


def test_expired_session_is_replaced_when_the_batch_certainly_was_not_applied() -> None:
    sim = opened()
    _forget_sessions(sim)
    sim.put("a")
    sim.run_until_settled(2)
    assert sim.settled["a"].error is None
    assert sim.version_of("a") == 1


def test_expired_session_is_an_error_when_the_batch_may_have_been_applied() -> None:
    sim = opened()
    sim.put("a")
    sim.advance()
    sim.on_the_way.clear()
    sim.arrive(sim.sends[0], lose_reply=True)
    _forget_sessions(sim)
    sim.pass_time(SILENCE_SECONDS)
    sim.elect(MEMBERS[1])
    sim.run_until_settled(2)
    error = sim.settled["a"].error
    assert error is not None
    assert "session expired" in error.message
    assert sim.version_of("a") == 1
    sim.put("b")
    sim.run_until_settled(3)
    assert sim.settled["b"].error is None


def _forget_sessions(sim: SimulatedCluster) -> None:
    """So many other gateways come that this one's session is forgotten."""
    for session in range(1, limits.SESSIONS_MAX + 1):
        sim.store.apply(commands.encode_batch(commands.Batch(session, 0, 0, b"", [])))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_command_is_applied_once_under_any_schedule(rng: random.Random) -> None:
    """Leaders change, members die and come back, replies are lost, old copies are applied late."""
    sim = SimulatedCluster(rng)
    submitted = 0
    for _ in range(rng.randint(5, 60)):
        action = rng.randrange(10)
        if action <= 2:
            for _ in range(rng.choice((1, 1, 5, 40))):
                sim.put(f"key{submitted}")
                submitted += 1
        elif action == 3:
            sim.elect(rng.choice(MEMBERS))
        elif action == 4:
            sim.dead = {member for member in MEMBERS if rng.random() < 0.3}
        elif action == 5 and sim.on_the_way:
            sim.on_the_way.pop(rng.randrange(len(sim.on_the_way)))  # lost
        elif action == 6 and sim.sends:
            proposals = [send for send in sim.sends if send.lane is Lane.PROPOSE]
            sim.apply_late(rng.choice(proposals))
        elif action == 7:
            sim.pass_time(rng.choice((0.01, 0.1, 0.3, 2.5)))
        else:
            sim.advance()
            rng.shuffle(sim.on_the_way)
            for deliver in [
                sim.on_the_way.pop() for _ in range(len(sim.on_the_way) // 2 + 1) if sim.on_the_way
            ]:
                deliver()
    sim.dead.clear()
    sim.run_until_settled(submitted)
    for number in range(submitted):
        key = f"key{number}"
        settled = sim.settled[key]
        if settled.error is None:
            assert sim.version_of(key) == 1
            assert sim.mod_revision_of(key) == settled.revision
        else:
            assert settled.error.message == "etcdserver: request timed out"
            assert sim.version_of(key) <= 1
