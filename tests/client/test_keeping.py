"""When leases are renewed and when they count as lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcray.client.keeping import (
    ATTEMPT_SECONDS_MAX,
    ATTEMPT_SECONDS_MIN,
    EARLY_SHARE,
    RETRY_SECONDS,
    KeepAliveSchedule,
)


def schedule_of(*ttls: int, now: float = 0.0) -> KeepAliveSchedule:
    """Lease number i + 1 has the i-th TTL, and was granted just now."""
    schedule = KeepAliveSchedule()
    for number, ttl in enumerate(ttls, 1):
        schedule.add(number, ttl, now + ttl, now)
    return schedule


def test_lease_is_renewed_after_a_third_of_its_ttl() -> None:
    schedule = schedule_of(30)
    assert schedule.seconds_to_next(0.0) == 10.0
    assert schedule.due(9.9, 10) == []
    assert schedule.due(10.0, 10) == [1]


def test_leases_that_are_nearly_due_join_the_round_most_urgent_first() -> None:
    schedule = schedule_of(30)
    schedule.add(2, 30, 30.0 - EARLY_SHARE, -EARLY_SHARE)
    schedule.add(3, 60, 60.0, 0.0)
    assert schedule.due(10.0, 10) == [2, 1]
    assert schedule.due(10.0, 1) == [2]


def test_deadline_counts_from_when_the_renewal_was_sent() -> None:
    schedule = schedule_of(30)
    assert schedule.answered(1, 30, sent_at=10.0) == 40.0
    assert schedule.take_expired(39.9) == []
    assert schedule.take_expired(40.0) == [1]
    assert len(schedule) == 0


def test_server_that_does_not_know_the_lease_ends_it_at_once() -> None:
    schedule = schedule_of(30)
    assert schedule.answered(1, 0, sent_at=10.0) is None
    assert schedule.seconds_to_next(10.0) is None


def test_failed_renewal_is_tried_again_soon() -> None:
    schedule = schedule_of(30)
    schedule.failed([1, 99], now=10.0)
    assert schedule.seconds_to_next(10.0) == pytest.approx(RETRY_SECONDS)


def test_one_attempt_never_takes_so_long_that_the_shortest_lease_is_lost() -> None:
    assert schedule_of(3600, 6).attempt_seconds() == 1.0
    assert schedule_of(1).attempt_seconds() == ATTEMPT_SECONDS_MIN
    assert schedule_of(3600).attempt_seconds() == ATTEMPT_SECONDS_MAX


def test_removed_lease_is_neither_renewed_nor_lost() -> None:
    schedule = schedule_of(30)
    schedule.remove(1)
    schedule.remove(1)
    assert (schedule.due(1000.0, 10), schedule.take_expired(1000.0)) == ([], [])
    assert schedule.answered(1, 30, sent_at=10.0) is None


@given(
    ttls=st.lists(st.integers(2, 60), min_size=1, max_size=8),
    latency=st.floats(0.0, 0.2),
    failures=st.lists(st.booleans(), max_size=20),
)
def test_leases_live_on_while_a_server_answers_within_two_attempts(
    ttls: list[int], latency: float, failures: list[bool]
) -> None:
    """Never two failures in a row."""
    schedule, now, was_failure = schedule_of(*ttls), 0.0, False
    for fails in [*failures, *[False] * 20]:
        now += schedule.seconds_to_next(now) or 0.0
        assert schedule.take_expired(now) == []
        due = schedule.due(now, 100)
        if fails and not was_failure:
            now += schedule.attempt_seconds()
            schedule.failed(due, now)
        else:
            for lease_id in due:
                assert schedule.answered(lease_id, ttls[lease_id - 1], now) is not None
            now += latency
        was_failure = fails and not was_failure
