"""etcd's rules for changes of members, one by one, on views that are made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcray.node.reconfiguration import LeaderView, objection
from etcray_storage.commands import (
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberRemove,
    MemberUpdate,
    encode_member_command,
)
from etcray_storage.errors import LEARNER_NOT_READY, MEMBER_NOT_ENOUGH_STARTED, UNHEALTHY, EtcdError
from etcray_storage.machine.members import Member
from etcray_storage.types import Index, MemberId

NEW = MemberId(99)


def view(
    voters: int,
    *,
    unstarted: frozenset[int] = frozenset(),
    down: frozenset[int] = frozenset(),
    learner_match: int | None = None,
) -> LeaderView:
    """Voters 1, 2, ... of whom 1 leads a log of 1000 entries; 50 is the learner, if there is one."""
    ids = [MemberId(number) for number in range(1, voters + 1)]
    members = [Member(i, "" if i in unstarted else f"m{i}", (f"url{i}",), ()) for i in ids]
    match = {i: Index(1000) for i in ids[1:]}
    if learner_match is not None:
        members.append(Member(MemberId(50), "", ("url50",), (), is_learner=True))
        match[MemberId(50)] = Index(learner_match)
    return LeaderView(ids[0], members, Index(1000), match, frozenset(i for i in ids if i not in down))


def add(seen: LeaderView, *, learner: bool = False) -> EtcdError | None:
    command = MemberAdd(NEW, "", ("new",), learner)
    return objection(CommandKind.MEMBER_ADD, encode_member_command(command), seen)


def promote(seen: LeaderView, member: int = 50) -> EtcdError | None:
    command = MemberPromote(MemberId(member))
    return objection(CommandKind.MEMBER_PROMOTE, encode_member_command(command), seen)


def remove(seen: LeaderView, member: int) -> EtcdError | None:
    command = MemberRemove(MemberId(member))
    return objection(CommandKind.MEMBER_REMOVE, encode_member_command(command), seen)


def some(*members: int) -> frozenset[int]:
    return frozenset(members)


def test_a_healthy_cluster_may_grow_and_shrink() -> None:
    for voters in range(1, 8):
        assert add(view(voters)) is None
        assert promote(view(voters, learner_match=1000)) is None
    for voters in range(2, 8):
        for member in range(1, voters + 1):
            assert remove(view(voters), member) is None


def test_a_second_voter_may_be_added_to_one_but_no_third_before_it_has_started() -> None:
    assert add(view(1)) is None
    assert add(view(2, unstarted=some(2))) is MEMBER_NOT_ENOUGH_STARTED
    assert add(view(2)) is None


def test_no_voter_is_added_while_one_is_down_and_a_learner_always() -> None:
    assert add(view(3, down=some(3))) is UNHEALTHY
    assert add(view(3, down=some(3)), learner=True) is None
    assert add(view(2, unstarted=some(2)), learner=True) is None


def test_a_voter_that_is_down_may_go_and_one_that_is_needed_may_not() -> None:
    seen = view(3, down=some(3))
    assert remove(seen, 3) is None
    assert remove(seen, 2) is UNHEALTHY
    assert remove(seen, 1) is UNHEALTHY
    assert remove(view(3, down=some(2, 3)), 3) is None, "it takes nothing away"


def test_the_rest_must_have_started() -> None:
    assert remove(view(2, unstarted=some(2)), 1) is MEMBER_NOT_ENOUGH_STARTED
    assert remove(view(3, unstarted=some(2)), 3) is MEMBER_NOT_ENOUGH_STARTED
    assert remove(view(3, unstarted=some(2)), 2) is None
    assert remove(view(1), 1) is MEMBER_NOT_ENOUGH_STARTED


@pytest.mark.parametrize(("match", "ready"), [(0, False), (899, False), (900, True), (1000, True)])
def test_a_learner_is_ready_with_nine_tenths_of_the_log(match: int, ready: bool) -> None:
    assert promote(view(3, learner_match=match)) is (None if ready else LEARNER_NOT_READY)


def test_what_the_state_machine_knows_better_is_left_to_it() -> None:
    seen = view(3, down=some(3))
    assert promote(seen, member=2) is None
    assert promote(seen, member=77) is None
    assert remove(seen, 77) is None
    update = encode_member_command(MemberUpdate(MemberId(77), ("url",)))
    assert objection(CommandKind.MEMBER_UPDATE, update, seen) is None
    for kind in CommandKind:
        assert objection(kind, b"\xc1", seen) is None


@given(st.integers(1, 7), st.sets(st.integers(2, 7)), st.integers(1, 7))
def test_what_is_removed_leaves_a_quorum_that_is_connected(voters: int, down: set[int], gone: int) -> None:
    """Unless it was lost before."""
    seen = view(voters, down=frozenset(down))
    connected = [v for v in range(1, voters + 1) if v not in down]
    if gone <= voters and len(connected) > voters // 2 and remove(seen, gone) is None:
        rest = [v for v in range(1, voters + 1) if v != gone]
        assert len([v for v in rest if v not in down]) > len(rest) // 2
