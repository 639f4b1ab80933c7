"""Who is found to differ, decided from hashes alone."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from etcray.node.envelope import NO_HASH
from etcray.node.reports import PeerReports, StateHashes
from etcray_storage.limits import STATE_HASHES_MAX, STATE_REPORTS_MAX
from etcray_storage.types import NOBODY, Index, MemberId

LEADER, SECOND, THIRD, FOURTH, FIFTH = (MemberId(number) for number in range(1, 6))
THREE = (LEADER, SECOND, THIRD)


def hash_of(index: int, state: int = 0) -> int:
    """Of a member whose state is of this sort: states that differ have different hashes everywhere."""
    return 1 + index * 1000 + state


def leader_at(last: int) -> tuple[StateHashes, PeerReports]:
    own = StateHashes()
    for index in range(1, last + 1):
        own.applied(Index(index), hash_of(index))
    return own, PeerReports(own)


def test_equal_members_are_left_alone_whatever_their_pace() -> None:
    _, reports = leader_at(100)
    assert not reports.heard(SECOND, Index(100), hash_of(100), False)
    assert not reports.heard(THIRD, Index(3), hash_of(3), False)
    assert reports.odd_ones(LEADER, THREE) == frozenset()


def test_the_first_report_that_differs_calls_for_a_look_at_once_and_names_its_sender() -> None:
    _, reports = leader_at(100)
    reports.heard(SECOND, Index(97), hash_of(97), False)
    assert reports.heard(THIRD, Index(95), hash_of(95, 1), False)
    assert reports.odd_ones(LEADER, THREE) == {THIRD}


def test_a_leader_that_differs_from_a_majority_names_itself() -> None:
    _, reports = leader_at(100)
    for member in (SECOND, THIRD):
        reports.heard(member, Index(99), hash_of(99, 1), False)
    assert reports.odd_ones(LEADER, THREE) == {LEADER}


def test_of_two_members_nobody_can_tell_who_is_wrong() -> None:
    _, reports = leader_at(100)
    reports.heard(SECOND, Index(99), hash_of(99, 1), False)
    assert reports.odd_ones(LEADER, (LEADER, SECOND)) == {NOBODY}


def test_a_silent_member_is_waited_for_if_its_word_decides() -> None:
    _, reports = leader_at(100)
    reports.heard(SECOND, Index(99), hash_of(99, 1), False)
    assert reports.odd_ones(LEADER, THREE) == frozenset()
    reports.heard(THIRD, Index(99), hash_of(99), False)
    assert reports.odd_ones(LEADER, THREE) == {SECOND}


def test_a_report_ahead_of_the_leader_is_compared_when_the_leader_is_there() -> None:
    own, reports = leader_at(10)
    reports.heard(SECOND, Index(10), hash_of(10), False)
    assert not reports.heard(THIRD, Index(11), hash_of(11, 1), False)
    assert reports.odd_ones(LEADER, THREE) == frozenset()
    own.applied(Index(11), hash_of(11))
    reports.heard(SECOND, Index(11), hash_of(11), False)
    assert reports.odd_ones(LEADER, THREE) == {THIRD}


def test_what_is_not_known_is_never_compared() -> None:
    own, reports = leader_at(10)
    assert not reports.heard(SECOND, Index(10), NO_HASH, False)
    own.applied(Index(11), NO_HASH)
    assert not reports.heard(SECOND, Index(11), hash_of(11), False)
    own.applied(Index(10 + STATE_HASHES_MAX), hash_of(10 + STATE_HASHES_MAX))
    assert not reports.heard(THIRD, Index(10), hash_of(10, 1), False)
    assert reports.odd_ones(LEADER, THREE) == frozenset()


def test_room_is_as_last_reported_and_forgotten_with_the_member() -> None:
    _, reports = leader_at(1)
    reports.heard(SECOND, Index(1), hash_of(1), True)
    assert reports.is_low_on_space(SECOND)
    reports.heard(SECOND, Index(1), hash_of(1), False)
    assert not reports.is_low_on_space(SECOND)
    reports.heard(SECOND, Index(1), hash_of(1), True)
    reports.forget(SECOND)
    assert not reports.is_low_on_space(SECOND)


def test_an_agreement_from_before_the_difference_says_nothing() -> None:
    """Found with a leader that differed: the first follower that got so far was blamed, because the other
    one had agreed just before."""
    _, reports = leader_at(100)
    reports.heard(SECOND, Index(99), hash_of(99), False)
    reports.heard(THIRD, Index(99), hash_of(99), False)
    reports.heard(SECOND, Index(100), hash_of(100, 1), False)
    assert reports.odd_ones(LEADER, THREE) == frozenset()
    reports.heard(THIRD, Index(100), hash_of(100, 1), False)
    assert reports.odd_ones(LEADER, THREE) == {LEADER}


class Diverging(NamedTuple):
    """A member whose state is another one from some index on, and what it reported. Two are alike only
    if they went astray in the same way at the same index."""

    way: int
    since: int
    reported: list[int]

    def hash_at(self, index: int) -> int:
        astray = self.way > 0 and index >= self.since
        return hash_of(index, self.way * 200 + self.since if astray else 0)


DIVERGING = st.builds(
    Diverging,
    st.integers(0, 2),
    st.sampled_from([1, 70, 85, 100]),
    st.lists(st.integers(60, 100), max_size=STATE_REPORTS_MAX // 2, unique=True).map(sorted),
)


@given(st.lists(DIVERGING, min_size=1, max_size=7))
def test_only_who_is_not_with_the_majority_is_named_and_all_of_them_once_everybody_is_heard(
    members: list[Diverging],
) -> None:
    """Against the plain rule, over the states in which the members ended."""
    own = StateHashes()
    for index in range(1, 101):
        own.applied(Index(index), members[0].hash_at(index))
    reports = PeerReports(own)
    ids = [MemberId(number + 1) for number in range(len(members))]
    groups = Counter(member.hash_at(100) for member in members)
    common = [state for state, count in groups.items() if count > len(members) // 2]
    odd = {m for m, member in zip(ids, members, strict=True) if common and member.hash_at(100) != common[0]}

    for member_id, member in list(zip(ids, members, strict=True))[1:]:
        for index in member.reported:
            reports.heard(member_id, Index(index), member.hash_at(index), False)
            if common:
                assert reports.odd_ones(LEADER, ids) <= odd
    for member_id, member in list(zip(ids, members, strict=True))[1:]:
        reports.heard(member_id, Index(100), member.hash_at(100), False)
    assert reports.odd_ones(LEADER, ids) == (odd if common or len(groups) == 1 else {NOBODY})
