"""What the supervisor decides about the membership: facts in, the next step out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etcray.supervisor.goals import (
    Add,
    Goal,
    HandOver,
    Lead,
    Promote,
    Propose,
    Remove,
    Resize,
    StartActor,
    StopActor,
    Update,
)
from etcray.supervisor.reconciler import Plan, Seen, plan
from etcray_storage.commands import CommandKind, MemberPublish
from etcray_storage.types import NOBODY, MemberId
from tests.supervisor.model import DEADLINE, URLS, Model, id_of


def lose_node(model: Model, name: str) -> None:
    model.change(model.named(name), serves=False, gone_since=model.now)


def break_disk(model: Model, name: str) -> None:
    model.change(model.named(name), serves=False, is_quarantined=True)


# --- nothing to do ----------------------------------------------------------------------------


def test_a_whole_cluster_needs_nothing() -> None:
    assert plan(Model.of(3).facts(), None) == Plan()


def test_without_a_leader_nothing_is_changed() -> None:
    model = Model.of(3)
    break_disk(model, "member1")
    break_disk(model, "member2")
    assert model.leader == NOBODY
    assert model.step(Resize(5)).change is None


def test_between_two_leaders_a_whole_cluster_waits() -> None:
    facts = replace(Model.of(3).facts(), leader=NOBODY)
    assert plan(facts, Resize(5)) == Plan(doing="waiting for a leader")
    assert plan(facts, None) == Plan()


# --- actors follow the list -------------------------------------------------------------------


def test_a_member_that_somebody_added_gets_an_actor_and_a_name() -> None:
    model = Model.of(3)
    stranger = Seen(id=MemberId(77), name="", is_learner=False, peer_urls=("http://x:1",), client_urls=())
    model.members[stranger.id] = stranger
    assert model.step().actors == (StartActor(MemberId(77), "member4"),)
    model.start_all()
    published = model.step().change
    assert isinstance(published, Propose)
    assert published.content == MemberPublish(MemberId(77), "member4", URLS)
    assert model.settle() == Plan()


def test_two_members_without_names_get_different_ones() -> None:
    model = Model.of(1)
    for number in (77, 78):
        model.members[MemberId(number)] = Seen(
            id=MemberId(number), name="", is_learner=False, peer_urls=(f"http://x:{number}",), client_urls=()
        )
    names = [step.name for step in model.step().actors]
    assert names == ["member2", "member3"]


def test_the_actor_of_a_removed_member_is_stopped_once_another_one_leads() -> None:
    model = Model.of(3)
    gone = model.members.pop(id_of("member3"))
    model.removed.add(gone.id)
    model.leader = gone.id
    assert model.facts().leader == gone.id
    assert plan(model.facts(), None).actors == ()
    model.leader = id_of("member1")
    assert plan(model.facts(), None).actors == (StopActor("member3"),)


def test_a_name_of_a_removed_member_is_never_given_again() -> None:
    model = Model.of(3)
    model.settle(Remove(id_of("member3")))
    model.settle(Resize(3))
    assert model.names == ["member1", "member2", "member4"]


def test_members_publish_where_clients_find_them_again_when_that_changes() -> None:
    model = Model.of(1)
    facts = replace(model.facts(), client_urls=("http://127.0.0.1:9",))
    change = plan(facts, None).change
    assert isinstance(change, Propose)
    assert change.kind is CommandKind.MEMBER_PUBLISH


# --- replacement ------------------------------------------------------------------------------


def test_a_quarantined_voter_is_replaced_in_four_steps() -> None:
    model = Model.of(3)
    break_disk(model, "member2")
    assert model.settle() == Plan()
    assert model.names == ["member1", "member3", "member4"]
    assert [line for line in model.log if "tells" not in line] == [
        "adding member4 in place of member2",
        "removing member2, for which member4 has come",
        "promoting member4",
        "member4 has become a voter",
    ]


def test_a_node_is_waited_for_until_the_deadline() -> None:
    model = Model.of(3)
    lose_node(model, "member2")
    model.now = DEADLINE - 1
    assert model.step().change is None
    model.now = DEADLINE
    model.settle()
    assert model.names == ["member1", "member3", "member4"]


def test_a_deadline_of_zero_means_never() -> None:
    model = Model.of(3)
    model.replace_after = 0.0
    break_disk(model, "member2")
    lose_node(model, "member3")
    model.now = 1e6
    assert plan(model.facts(), None).change is None


def test_nobody_is_replaced_when_the_rest_has_no_majority() -> None:
    model = Model.of(3)
    lose_node(model, "member3")
    model.change(model.named("member2"), serves=False)
    model.now = DEADLINE
    decided = plan(replace(model.facts(), leader=id_of("member1")), None)
    assert decided.change is None
    assert "no majority" in decided.doing


def test_two_lost_members_are_replaced_one_after_the_other() -> None:
    model = Model.of(5)
    break_disk(model, "member1")
    break_disk(model, "member2")
    model.settle()
    assert model.names == ["member3", "member4", "member5", "member6", "member7"]
    assert len(model.voters) == 5


def test_a_voter_that_comes_back_in_time_stays_and_its_replacement_goes() -> None:
    model = Model.of(3)
    lose_node(model, "member2")
    model.now = DEADLINE
    model.step()
    assert "member4" in model.names
    model.change(model.named("member2"), serves=True, gone_since=None)
    model.settle()
    assert model.names == ["member1", "member2", "member3"]


def test_a_replacement_that_is_lost_itself_is_replaced() -> None:
    model = Model.of(3)
    break_disk(model, "member2")
    model.step()
    break_disk(model, "member4")
    model.settle()
    assert model.names == ["member1", "member3", "member5"]


def test_a_learner_that_a_person_keeps_is_in_the_way_of_a_replacement() -> None:
    model = Model.of(3)
    model.settle(Add("watcher", is_learner=True))
    break_disk(model, "member2")
    decided = model.step()
    assert decided.change is None
    assert "promote or remove the learner watcher" in decided.doing
    model.settle(Promote(id_of("watcher")))
    model.settle()
    assert model.names == ["member1", "member3", "member4", "watcher"]


def test_a_lost_learner_that_a_person_keeps_goes_only_for_a_voter() -> None:
    model = Model.of(3)
    model.settle(Add("watcher", is_learner=True))
    break_disk(model, "watcher")
    assert model.step().change is None
    break_disk(model, "member2")
    model.settle()
    assert model.names == ["member1", "member3", "member4"]


def test_a_lagging_learner_is_waited_for() -> None:
    model = Model.of(3)
    break_disk(model, "member2")
    model.step()
    model.step()
    model.change(model.named("member4"), serves=True, applied=0, client_urls=URLS)
    facts = replace(model.facts(), commit=10_000)
    decided = plan(facts, None)
    assert decided.change is None
    assert decided.doing == "member4 is catching up (0 of 10000 entries)"


# --- goals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 3), (3, 5, 3), (3, 1), (5, 7, 1), (2, 4)])
def test_a_cluster_takes_the_size_that_is_wanted(sizes: tuple[int, ...]) -> None:
    model = Model.of(sizes[0])
    for size in sizes[1:]:
        assert model.settle(Resize(size)).is_done
        assert len(model.voters) == len(model.members) == size
        assert all(member.intent == "" for member in model.voters)


def test_the_youngest_go_first_and_the_leader_last() -> None:
    model = Model.of(3)
    model.leader = id_of("member3")
    model.settle(Resize(1))
    assert model.names == ["member3"]


def test_who_shares_a_node_goes_before_who_does_not() -> None:
    model = Model.of(3)
    model.change(model.named("member2"), place="member1")
    model.settle(Resize(2))
    assert model.names == ["member1", "member3"]


def test_a_leader_hands_over_before_it_is_removed() -> None:
    model = Model.of(3)
    leader = model.leader
    first = model.step(Remove(leader))
    assert isinstance(first.change, HandOver)
    model.settle(Remove(leader))
    assert leader not in model.members


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        (Remove(MemberId(5)), "no member 5"),
        (Promote(MemberId(5)), "no member 5"),
        (Lead(id_of("watcher")), "learner"),
        (Add("other"), "watcher is a learner still"),
        (Resize(5), "watcher is a learner still"),
    ],
)
def test_what_cannot_be_is_refused(goal: Goal, why: str) -> None:
    model = Model.of(3)
    model.settle(Add("watcher", is_learner=True))
    decided = model.step(goal)
    assert why in decided.refusal
    assert decided.change is None


def test_the_last_voter_stays() -> None:
    assert "only voter" in Model.of(1).step(Remove(id_of("member1"))).refusal


def test_a_voter_whose_loss_would_cost_the_majority_stays() -> None:
    model = Model.of(3)
    model.change(model.named("member3"), serves=False)
    assert "no majority" in model.step(Remove(id_of("member2"))).refusal
    assert model.settle(Remove(id_of("member3"))).is_done


def test_a_removed_name_cannot_be_added_again() -> None:
    model = Model.of(3)
    model.settle(Remove(id_of("member3")))
    assert "another name" in model.step(Add("member3")).refusal


@pytest.mark.parametrize(
    "goal", [Add("x"), Add("y", is_learner=True), Remove(id_of("member1")), Lead(id_of("member2")), Resize(5)]
)
def test_asking_twice_does_it_once(goal: Goal) -> None:
    model = Model.of(3)
    model.settle(goal)
    done = len(model.log)
    assert model.settle(goal).is_done
    assert len(model.log) == done


def test_an_update_changes_the_peer_urls() -> None:
    model = Model.of(3)
    model.settle(Update(id_of("member1"), ("http://new:1",)))
    assert model.named("member1").peer_urls == ("http://new:1",)


def test_a_replacement_that_is_needed_comes_before_growth() -> None:
    model = Model.of(3)
    break_disk(model, "member1")
    model.settle(Resize(5))
    assert len(model.voters) == 5
    assert "member1" not in model.names
