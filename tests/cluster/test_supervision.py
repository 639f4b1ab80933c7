"""What the supervisor decides: times and facts in, decisions out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcray.supervision import (
    PAUSE_FIRST_SECONDS,
    PAUSE_MAX_SECONDS,
    REFUSED_PAUSE_SECONDS,
    STEADY_SECONDS,
    Phase,
    Supervision,
    pause_after,
)


def serving(*names: str) -> Supervision:
    supervision = Supervision(names, 0.0)
    for charge in supervision.due(0.0):
        supervision.created(charge.name, 0.0)
        supervision.opened(charge.name, 0.0)
    return supervision


def test_all_actors_are_created_at_once() -> None:
    supervision = Supervision(["a", "b", "c"], 5.0)
    assert [charge.name for charge in supervision.due(5.0)] == ["a", "b", "c"]


def test_a_first_death_is_healed_at_once() -> None:
    supervision = serving("a", "b")
    supervision.died("a", "killed", 100.0)
    assert [charge.name for charge in supervision.due(100.0)] == ["a"]
    assert supervision.charges["b"].phase is Phase.SERVING


def test_an_actor_that_keeps_dying_is_created_after_growing_pauses() -> None:
    supervision = serving("a")
    now, pauses = 100.0, []
    for _ in range(12):
        supervision.died("a", "again", now)
        due = supervision.next_due()
        assert due is not None
        pauses.append(round(due - now, 6))
        now = due
        supervision.created("a", now)
    assert pauses[:4] == [0.0, PAUSE_FIRST_SECONDS, 2 * PAUSE_FIRST_SECONDS, 4 * PAUSE_FIRST_SECONDS]
    assert pauses[-1] == PAUSE_MAX_SECONDS


def test_who_served_for_a_while_is_healed_at_once_again() -> None:
    supervision = serving("a")
    for _ in range(5):
        supervision.died("a", "again", 1.0)
        supervision.created("a", 20.0)
    supervision.opened("a", 20.0)
    supervision.died("a", "later", 20.0 + STEADY_SECONDS)
    assert supervision.next_due() == 20.0 + STEADY_SECONDS


def test_a_refusal_is_shown_and_tried_again_rarely() -> None:
    supervision = Supervision(["a"], 0.0)
    supervision.created("a", 0.0)
    supervision.refused("a", "the log is damaged", 1.0)
    assert supervision.charges["a"].problem == "the log is damaged"
    assert supervision.due(REFUSED_PAUSE_SECONDS) == []
    assert [c.name for c in supervision.due(1.0 + REFUSED_PAUSE_SECONDS)] == ["a"]


def test_news_of_a_replaced_actor_mean_nothing() -> None:
    supervision = Supervision(["a"], 0.0)
    first = supervision.created("a", 0.0)
    supervision.died("a", "killed", 1.0)
    assert not supervision.is_current("a", first)
    second = supervision.created("a", 1.0)
    assert not supervision.is_current("a", first)
    assert supervision.is_current("a", second)
    assert supervision.charges["a"].restarts == 1


def test_a_death_that_is_told_twice_counts_once() -> None:
    supervision = serving("a")
    supervision.died("a", "its process ended", 50.0)
    supervision.died("a", "Ray says so too", 51.0)
    assert supervision.charges["a"].deaths_in_a_row == 1
    assert supervision.charges["a"].problem == "its process ended"


def test_silence_is_measured_and_is_not_a_death() -> None:
    supervision = serving("a")
    supervision.answered("a", 3.0)
    assert supervision.silent_seconds("a", 63.0) == 60.0
    assert supervision.due(63.0) == []


def test_opening_what_does_not_exist_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="opened while waiting"):
        Supervision(["a"], 0.0).opened("a", 0.0)


@given(st.integers(min_value=1, max_value=10_000))
def test_pauses_grow_and_are_bounded(deaths: int) -> None:
    assert 0.0 <= pause_after(deaths) <= pause_after(deaths + 1) <= PAUSE_MAX_SECONDS
