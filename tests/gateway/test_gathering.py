"""The batching policy: who waits, for whom, and how long."""

from __future__ import annotations

from etcray.gateway.gathering import HOLD_SECONDS_MAX, Gathering

FURTHER_MIN = 64


def gathering() -> Gathering:
    return Gathering(further_min=FURTHER_MIN, batch_max=1000, in_flight_max=2)


def test_first_request_leaves_at_once() -> None:
    assert gathering().may_send(5.0, pending=1, in_flight=0)


def test_lone_client_never_waits() -> None:
    policy = gathering()
    policy.answered(10.0, sent_at=9.0, count=1, pending=0, unanswered=0)
    assert policy.may_send(10.0, pending=1, in_flight=0)


def test_batch_waits_for_the_clients_that_were_just_answered() -> None:
    policy = gathering()
    policy.answered(10.0, sent_at=9.996, count=30, pending=34, unanswered=0)
    assert 10.0005 < policy.hold_until < 10.0015
    assert not policy.may_send(10.0, pending=34, in_flight=0)
    assert policy.may_send(10.0, pending=64, in_flight=0)
    assert policy.may_send(policy.hold_until, pending=34, in_flight=0)


def test_many_clients_are_parted_into_two_equal_halves() -> None:
    policy = gathering()
    policy.answered(10.0, sent_at=9.996, count=256, pending=0, unanswered=0)
    assert not policy.may_send(10.0, pending=127, in_flight=0)
    assert policy.may_send(10.0, pending=128, in_flight=0)
    assert not policy.may_send(10.0, pending=127, in_flight=1)
    assert policy.may_send(10.0, pending=128, in_flight=1)


def test_those_that_were_under_way_at_the_end_of_a_round_count_as_clients() -> None:
    policy = gathering()
    policy.answered(10.0, sent_at=9.996, count=100, pending=0, unanswered=300)
    assert not policy.may_send(10.0, pending=199, in_flight=1)
    assert policy.may_send(10.0, pending=200, in_flight=1)


def test_wait_has_a_bound_whatever_the_last_round_took() -> None:
    policy = gathering()
    policy.answered(10.0, sent_at=3.0, count=30, pending=0, unanswered=0)
    assert policy.hold_until == 10.0 + HOLD_SECONDS_MAX


def test_further_batch_leaves_when_it_is_worth_a_call_and_half_of_all() -> None:
    policy = gathering()
    assert not policy.may_send(0.0, pending=FURTHER_MIN - 1, in_flight=1)
    assert policy.may_send(0.0, pending=FURTHER_MIN, in_flight=1)
    assert not policy.may_send(0.0, pending=1000, in_flight=2)
    policy.answered(0.0, sent_at=0.0, count=5000, pending=0, unanswered=0)
    assert not policy.may_send(0.0, pending=999, in_flight=1)
    assert policy.may_send(0.0, pending=1000, in_flight=1), "a full batch need not wait"
