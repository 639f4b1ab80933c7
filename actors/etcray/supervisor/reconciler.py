"""What to do next so that the actors, the replicated member list and what a person wants agree.

Pure: facts in, the next steps out. Nothing is remembered between two calls: the replicated list says how
far a replacement or an addition has come, so a new supervisor goes on where the last one ended.

How a lost member is replaced:
1. A voter is lost: its disk is damaged, or its Ray node is gone for longer than the deadline.
2. A learner with a new id, name and directory is added. Its peer URL says for whom it comes.
3. An actor is made for it, on the node that has the fewest members. It catches up.
4. The lost voter is removed, and the learner is promoted.
Until 4 the number of voters does not change, and between the two halves of 4 the quorum shrinks with it:
no step makes a majority harder to reach than it was. If the voter comes back before it was removed, the
learner is given up instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from etcray.spec import derive_member_id, peer_url
from etcray.supervisor.goals import (
    Add,
    Change,
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
from etcray_storage.commands import (
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberPublish,
    MemberRemove,
    MemberUpdate,
)
from etcray_storage.types import NOBODY, MemberId

CAUGHT_UP_ENTRIES: Final = 1_000
"""A learner that has all but so many of the committed entries has caught up. The leader has the last
word when it is promoted."""

_VOTER: Final = "?voter"
_REPLACES: Final = "?replaces="
"""What the peer URL of a learner says that is on its way to become a voter. Gone once it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One member of the replicated list, with what is known of its actor."""

    id: MemberId
    name: str
    """As replicated: empty until it was published, if it was added by its URL only."""
    is_learner: bool
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    actor: str = ""
    """The name of its actor; empty: it has none yet."""
    serves: bool = False
    """It has opened, and answered a moment ago."""
    applied: int = 0
    place: str = ""
    """The machine or Ray node where it lives."""
    is_quarantined: bool = False
    """Its disk is damaged or was lost: it will not open again."""
    gone_since: float | None = None
    """No living Ray node is where its directory is."""

    @property
    def intent(self) -> str:
        """For what a learner was added: empty for one that stays a learner."""
        return self.peer_urls[0].partition("?")[1:][1] if self.peer_urls else ""

    @property
    def is_coming(self) -> bool:
        """It is a learner on its way to become a voter."""
        return self.is_learner and bool(self.intent)

    @property
    def replaces(self) -> MemberId:
        """The voter for which it comes, or nobody."""
        key, _, value = self.intent.partition("=")
        return MemberId(int(value, 16)) if key == "replaces" else NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that a decision depends on."""

    cluster: str
    token: str
    members: tuple[Seen, ...]
    """The replicated list, as the member knows it that has applied most."""
    removed: frozenset[MemberId]
    """Ids that will never be members again."""
    actors: tuple[tuple[str, MemberId], ...]
    """Name and id of every member actor that is kept alive."""
    leader: MemberId
    commit: int
    client_urls: tuple[str, ...]
    """Where clients reach the cluster: what every member publishes."""
    now: float
    replace_after: float
    """Seconds; 0: no member is ever replaced."""

    @property
    def voters(self) -> list[Seen]:
        return [member for member in self.members if not member.is_learner]

    @property
    def learners(self) -> list[Seen]:
        return [member for member in self.members if member.is_learner]

    def member(self, member_id: MemberId) -> Seen | None:
        return next((member for member in self.members if member.id == member_id), None)

    def is_lost(self, member: Seen) -> bool:
        """It will not come back by itself, as far as anybody can tell."""
        if self.replace_after <= 0:
            return False
        if member.is_quarantined:
            return True
        return member.gone_since is not None and self.now - member.gone_since >= self.replace_after

    def is_caught_up(self, member: Seen) -> bool:
        return member.serves and member.applied + CAUGHT_UP_ENTRIES >= self.commit

    def leaves_majority(self, without: Seen) -> bool:
        """Whether the voters that are left without that one would have a majority at work."""
        rest = [voter for voter in self.voters if voter.id != without.id]
        return len([voter for voter in rest if voter.serves]) * 2 > len(rest)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. The caller does all of it, and asks again when it has heard how it went."""

    actors: tuple[StartActor | StopActor, ...] = ()
    change: Change | None = None
    """At most one at a time: no second one is decided before the first is seen in the list."""
    doing: str = ""
    """In words, for people; empty when everything is as it should be."""
    is_done: bool = False
    """The goal is reached."""
    refusal: str = ""
    """Why the goal cannot be reached; it is given up then."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Toward a goal or a replacement: a change, or waiting, or that it cannot be."""

    change: Change | None = None
    doing: str = ""
    refusal: str = ""


def plan(facts: Facts, goal: Goal | None) -> Plan:
    """The next steps. Call it whenever a fact may have changed."""
    actors = _actors_due(facts)
    if facts.leader == NOBODY:
        return Plan(actors, doing="waiting for a leader" if goal else "")
    published = _publication(facts)
    if published is not None:
        return Plan(actors, published, published.reason)
    step = _next(facts, goal)
    if step is not None:
        return Plan(
            actors,
            step.change,
            step.doing or (step.change.reason if step.change else ""),
            False,
            step.refusal,
        )
    waiting = _unsettled(facts)
    is_waited_for = bool(actors) or (bool(waiting) and isinstance(goal, Resize | Add))
    return Plan(actors, doing=waiting, is_done=goal is not None and not is_waited_for)


def _next(facts: Facts, goal: Goal | None) -> _Step | None:
    """None: the goal is reached and nobody has to be replaced, as far as the list goes."""
    match goal:
        case Remove() | Promote() | Update() | Lead():
            return _toward(facts, goal)
        case Resize() | Add():
            return _heal(facts) or (
                _resize(facts, goal.voters) if isinstance(goal, Resize) else _add(facts, goal)
            )
    return _heal(facts)


# --- actors -----------------------------------------------------------------------------------


def _actors_due(facts: Facts) -> tuple[StartActor | StopActor, ...]:
    # A member that led when it was removed may be needed until there is another leader.
    stops = [
        StopActor(name)
        for name, member_id in facts.actors
        if member_id in facts.removed and facts.leader not in (NOBODY, member_id)
    ]
    known = {member_id for _, member_id in facts.actors}
    names = {name for name, _ in facts.actors} | {member.name for member in facts.members}
    starts = []
    for member in facts.members:
        if member.id in known or member.id in facts.removed:
            continue
        name = member.name or next_name(facts, names)
        names.add(name)
        starts.append(StartActor(member.id, name))
    return (*stops, *starts)


def next_name(facts: Facts, taken: set[str] | None = None) -> str:
    """The first `memberN` that nobody has or had: an id is derived from a name, and a removed id never
    comes back."""
    names = taken or {name for name, _ in facts.actors} | {member.name for member in facts.members}
    ids = facts.removed | {member.id for member in facts.members}
    number = 1
    while f"member{number}" in names or _id_of(facts, f"member{number}") in ids:
        number += 1
    return f"member{number}"


def _id_of(facts: Facts, name: str) -> MemberId:
    return derive_member_id(facts.cluster, facts.token, name)


def _publication(facts: Facts) -> Propose | None:
    """A member that serves tells its name and where clients find it; a voter's URL says no more that it is
    on its way."""
    for member in facts.members:
        if not member.serves:
            continue
        if (member.name, member.client_urls) != (member.actor, facts.client_urls):
            content = MemberPublish(member.id, member.actor, facts.client_urls)
            return Propose(CommandKind.MEMBER_PUBLISH, content, f"{member.actor} tells where it serves")
        if not member.is_learner and member.intent:
            url = (peer_url(facts.cluster, member.actor),)
            content_of_url = MemberUpdate(member.id, url)
            return Propose(CommandKind.MEMBER_UPDATE, content_of_url, f"{member.name} has become a voter")
    return None


def _unsettled(facts: Facts) -> str:
    waiting = [member.name or f"{member.id:x}" for member in facts.members if not member.serves]
    return f"waiting for {', '.join(waiting)}" if waiting else ""


# --- replacement ------------------------------------------------------------------------------


def _heal(facts: Facts) -> _Step | None:
    lost = [voter for voter in facts.voters if facts.is_lost(voter)]
    for learner in facts.learners:
        # One that a person keeps stays in the list, unless it is in the way of a voter.
        if facts.is_lost(learner) and (learner.is_coming or lost):
            return _Step(_removal(learner, f"removing {learner.name}, which was lost before it could vote"))
    for coming in facts.learners:
        if coming.is_coming:
            return _bring_in(facts, coming)
    return _replace(facts, lost[0]) if lost else None


def _replace(facts: Facts, lost: Seen) -> _Step:
    if not facts.leaves_majority(lost):
        return _Step(doing=f"{lost.name} is lost, but without it there would be no majority at work")
    if facts.learners:
        in_the_way = facts.learners[0].name
        return _Step(
            doing=f"{lost.name} is lost; promote or remove the learner {in_the_way} to let it be replaced"
        )
    name = next_name(facts)
    return _Step(_addition(facts, name, f"{_REPLACES}{lost.id:x}", f"adding {name} in place of {lost.name}"))


def _bring_in(facts: Facts, coming: Seen) -> _Step:
    """A learner that is to vote: let it catch up, make room for it, promote it."""
    name = coming.name or coming.actor or f"{coming.id:x}"
    old = facts.member(coming.replaces)
    if old is not None and not facts.is_lost(old) and old.serves:
        return _Step(_removal(coming, f"removing {name}: {old.name} is back"))
    if not facts.is_caught_up(coming):
        return _Step(doing=f"{name} is catching up ({coming.applied} of {facts.commit} entries)")
    if old is None:
        return _Step(Propose(CommandKind.MEMBER_PROMOTE, MemberPromote(coming.id), f"promoting {name}"))
    if not facts.leaves_majority(old):
        return _Step(doing=f"{old.name} is not removed: without it there would be no majority at work")
    return _Step(_removal(old, f"removing {old.name}, for which {name} has come"))


def _addition(facts: Facts, name: str, intent: str, reason: str) -> Propose:
    url = peer_url(facts.cluster, name) + intent
    content = MemberAdd(_id_of(facts, name), name, (url,), True)
    return Propose(CommandKind.MEMBER_ADD, content, reason)


def _removal(member: Seen, reason: str) -> Propose:
    return Propose(CommandKind.MEMBER_REMOVE, MemberRemove(member.id), reason)


# --- what a person wants ----------------------------------------------------------------------


def _toward(facts: Facts, goal: Remove | Promote | Update | Lead) -> _Step | None:
    member = facts.member(goal.member)
    if member is None:
        if isinstance(goal, Remove) and goal.member in facts.removed:
            return None
        return _Step(refusal=f"there is no member {goal.member:x}")
    match goal:
        case Remove():
            return _remove(facts, member)
        case Promote():
            if not member.is_learner:
                return None
            change = Propose(CommandKind.MEMBER_PROMOTE, MemberPromote(member.id), f"promoting {member.name}")
            return (
                _Step(change) if facts.is_caught_up(member) else _Step(doing=f"{member.name} is catching up")
            )
        case Update():
            if member.peer_urls == goal.peer_urls:
                return None
            content = MemberUpdate(member.id, goal.peer_urls)
            return _Step(Propose(CommandKind.MEMBER_UPDATE, content, f"updating {member.name}"))
    if member.is_learner:
        return _Step(refusal=f"{member.name} is a learner, it cannot lead")
    return None if facts.leader == member.id else _Step(HandOver(member.id, f"{member.name} is to lead"))


def _remove(facts: Facts, member: Seen) -> _Step:
    name = member.name or f"{member.id:x}"
    if member.is_learner:
        return _Step(_removal(member, f"removing {name}"))
    if len(facts.voters) == 1:
        return _Step(refusal=f"{name} is the only voter")
    if not facts.leaves_majority(member):
        return _Step(refusal=f"without {name} there would be no majority of the members at work")
    if facts.leader == member.id:
        successor = _successor(facts, member)
        return _Step(HandOver(successor.id, f"{successor.name} is to lead before {name} goes"))
    return _Step(_removal(member, f"removing {name}"))


def _successor(facts: Facts, leaving: Seen) -> Seen:
    """Who is furthest. There is somebody: a majority is at work without the one that leaves."""
    others = [voter for voter in facts.voters if voter.id != leaving.id and voter.serves]
    return max(others, key=lambda voter: (voter.applied, voter.id))


def _add(facts: Facts, goal: Add) -> _Step | None:
    if any(member.name == goal.name for member in facts.members):
        return None
    if _id_of(facts, goal.name) in facts.removed:
        return _Step(
            refusal=f"there was a member {goal.name} before, and it was removed: choose another name"
        )
    if facts.learners:
        return _Step(refusal=f"{facts.learners[0].name} is a learner still; promote or remove it first")
    return _Step(_addition(facts, goal.name, "" if goal.is_learner else _VOTER, f"adding {goal.name}"))


def _resize(facts: Facts, wanted: int) -> _Step | None:
    voters = facts.voters
    if len(voters) < wanted:
        return _add(facts, Add(next_name(facts)))
    if len(voters) > wanted:
        return _remove(facts, _least_needed(facts, voters))
    return None


def _least_needed(facts: Facts, voters: Sequence[Seen]) -> Seen:
    """Lost ones first, then those that do not serve, then one of those that share a node; then the
    youngest. The leader only if everything else is equal."""

    def need(voter: Seen) -> tuple[bool, bool, int, bool, int]:
        sharing = len([other for other in voters if other.place == voter.place])
        place_in_list = facts.members.index(voter)
        return (not facts.is_lost(voter), voter.serves, -sharing, voter.id == facts.leader, -place_in_list)

    return min(voters, key=need)
