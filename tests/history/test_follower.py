"""What the follower decides: times and answers in, decisions out."""

from __future__ import annotations

from etcray.history.follower import (
    AVOID_SECONDS,
    FAR_BEHIND_REVISIONS,
    PACE_SECONDS,
    RETRY_SECONDS_MAX,
    Follower,
    Step,
)
from etcray.node.api import HistoryRowsReply, Outcome
from etcray_storage.types import NOBODY, MemberId, Term

A, B, C = MemberId(1), MemberId(2), MemberId(3)


def reply(
    member: MemberId,
    revision: int,
    through: int,
    *,
    leader: MemberId = A,
    compact: int = -1,
    complete: int = 1,
) -> HistoryRowsReply:
    return HistoryRowsReply(
        Outcome.ANSWERED, member, Term(1), leader, revision, through, compact, complete, b""
    )


def follower_of(position: int = 1) -> Follower:
    follower = Follower(position)
    follower.set_members([A, B, C])
    return follower


def test_nobody_is_asked_before_the_members_are_known() -> None:
    assert Follower(1).choose(0.0) == NOBODY


def test_the_newest_rows_come_from_the_leader() -> None:
    follower = follower_of()
    assert follower.answered(C, reply(C, 10, 10, leader=B)) is Step.APPEND
    follower.position = 10
    assert follower.choose(0.0) == B


def test_far_behind_it_asks_one_that_does_not_lead_and_stays_with_it() -> None:
    follower = follower_of()
    far = 2 + 2 * FAR_BEHIND_REVISIONS
    follower.answered(A, reply(A, far, 2, leader=A))
    follower.position = 2
    chosen = follower.choose(0.0)
    assert chosen in (B, C)
    follower.answered(chosen, reply(chosen, far, 100, leader=A))
    follower.position = 100
    assert follower.choose(1.0) == chosen


def test_a_member_that_failed_is_left_for_another_and_tried_again_later() -> None:
    follower = follower_of()
    follower.answered(A, reply(A, 1, 1, leader=A))
    assert follower.choose(0.0) == A
    follower.failed(A, NOBODY, 0.0)
    others = {follower.choose(0.1), follower.choose(AVOID_SECONDS - 0.1)}
    assert A not in others
    follower.answered(B, reply(B, 1, 1, leader=A))
    assert follower.choose(AVOID_SECONDS + 0.1) == A


def test_a_dead_member_is_not_asked_until_the_members_are_set_again() -> None:
    follower = follower_of()
    follower.answered(B, reply(B, 1, 1, leader=A))
    follower.member_died(A)
    assert all(follower.choose(now) != A for now in (0.0, 100.0, 1e9))
    follower.set_members([A, B, C])
    follower.answered(B, reply(B, 1, 1, leader=A))
    assert follower.choose(0.0) == A


def test_if_all_have_failed_the_one_that_failed_first_is_asked_after_growing_pauses() -> None:
    follower = follower_of()
    pauses = []
    asked = []
    now = 0.0
    for _ in range(30):
        member = follower.choose(now)
        asked.append(member)
        pauses.append(follower.failed(member, NOBODY, now))
        now += pauses[-1]
    assert set(asked) == {A, B, C}
    assert pauses[-1] == RETRY_SECONDS_MAX
    assert pauses == sorted(pauses)


def test_a_refusal_that_names_the_leader_leads_there() -> None:
    follower = follower_of()
    follower.failed(A, B, 0.0)
    assert follower.choose(0.1) == B


def test_rows_with_a_hole_are_not_taken_but_replaced_by_a_base() -> None:
    follower = follower_of(position=10)
    assert follower.answered(A, reply(A, 100, 60, compact=50, complete=40)) is Step.BEGIN_BASE
    assert follower.base_revision == 50
    assert follower.request().base_revision == 50
    assert follower.request().after_revision == 0
    assert follower.answered(B, reply(B, 100, 30, compact=50, complete=50)) is Step.ADD_TO_BASE
    assert follower.request().after_revision == 30
    assert follower.answered(C, reply(C, 120, 50, compact=70, complete=50)) is Step.FINISH_BASE
    follower.position = 50
    request = follower.request()
    assert (request.after_revision, request.base_revision) == (50, 0)


def test_no_row_is_missing_right_behind_the_position() -> None:
    follower = follower_of(position=10)
    assert follower.answered(A, reply(A, 100, 60, compact=90, complete=11)) is Step.APPEND
    assert follower.answered(A, reply(A, 100, 60, compact=90, complete=12)) is Step.BEGIN_BASE


def test_a_base_that_was_compacted_away_is_abandoned() -> None:
    follower = follower_of(position=10)
    follower.answered(A, reply(A, 100, 60, compact=50, complete=40))
    assert follower.answered(A, reply(A, 100, 30, compact=80, complete=80)) is Step.ABANDON_BASE
    assert follower.request().base_revision == 0
    assert follower.answered(A, reply(A, 100, 60, compact=80, complete=80)) is Step.BEGIN_BASE
    assert follower.base_revision == 80


def test_calls_are_paced_only_when_there_is_nothing_left_to_fetch() -> None:
    follower = follower_of()
    follower.answered(A, reply(A, 100, 50))
    follower.position = 50
    assert follower.pause(7.0, 7.01) == 0.0
    follower.answered(A, reply(A, 100, 100))
    follower.position = 100
    assert follower.pause(7.0, 7.01) == 7.0 + PACE_SECONDS - 7.01
    assert follower.pause(7.0, 9.0) == 0.0
