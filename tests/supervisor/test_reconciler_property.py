"""Whatever happens to nodes, disks and supervisors, the membership stays safe and becomes whole again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.supervisor.goals import Goal, Lead, Promote, Remove, Resize
from tests.supervisor.model import DEADLINE, Model

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["break", "lose", "return", "pause", "start", "step", "step", "step", "later"]),
        st.integers(min_value=0, max_value=6),
    ),
    max_size=60,
)


def happen(model: Model, event: str, number: int, goal: Goal | None) -> None:
    members = sorted(model.members.values(), key=lambda member: member.name)
    member = members[number % len(members)]
    match event:
        case "break":
            model.change(member, serves=False, is_quarantined=True)
        case "lose" if member.gone_since is None:
            model.change(member, serves=False, gone_since=model.now)
        case "return":
            model.change(member, gone_since=None)
        case "pause":
            model.change(member, serves=False)
        case "start":
            model.start_all()
        case "later":
            model.now += DEADLINE / 2
        case "step":
            model.step(goal)


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=1, max_value=5), EVENTS, st.one_of(st.none(), st.sampled_from([1, 3, 5])))
def test_no_step_costs_a_majority_and_faults_that_end_are_healed(
    count: int, events: list[tuple[str, int]], size: int | None
) -> None:
    """The model asserts, at each change, what etcd's rules and a living majority ask for."""
    model = Model.of(count)
    goal = None if size is None else Resize(size)
    for event, number in events:
        happen(model, event, number, goal)
        assert len([member for member in model.members.values() if member.is_learner]) <= 1
    for member in list(model.members.values()):
        if member.gone_since is not None:
            model.change(member, gone_since=None)
    model.start_all()
    if not model.leader:
        return  # Too many disks are lost: nobody can heal that through the log.
    if goal is not None:
        model.settle(goal, steps=200)
    model.settle(steps=200)
    assert all(member.serves for member in model.members.values())
    assert len(model.voters) == len(model.members) == (count if size is None else size)
    assert sorted(model.actors.values()) == sorted(model.members)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_goal_ends_and_changes_nothing_more(data: st.DataObject) -> None:
    model = Model.of(data.draw(st.integers(min_value=1, max_value=5)))
    for _ in range(data.draw(st.integers(min_value=1, max_value=4))):
        member = data.draw(st.sampled_from(sorted(model.members)))
        goals: list[Goal] = [Resize(3), Resize(1), Resize(5), Remove(member), Lead(member), Promote(member)]
        goal = data.draw(st.sampled_from(goals))
        decided = model.settle(goal)
        assert decided.is_done or decided.refusal
        assert model.settle().change is None
        assert len(model.voters) >= 1
