"""A cluster as the reconciler sees it, as plain data: a list that obeys etcd's rules, and actors that live
or do not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from etcray.spec import derive_member_id
from etcray.supervisor.goals import Goal, HandOver, Propose, StartActor, StopActor
from etcray.supervisor.reconciler import Facts, Plan, Seen, plan
from etcray_storage.commands import MemberAdd, MemberPromote, MemberPublish, MemberRemove, MemberUpdate
from etcray_storage.types import NOBODY, MemberId

URLS = ("http://127.0.0.1:2379",)
DEADLINE = 60.0


def id_of(name: str) -> MemberId:
    return derive_member_id("c", "token", name)


def voter(name: str) -> Seen:
    return Seen(
        id=id_of(name),
        name=name,
        is_learner=False,
        peer_urls=(f"ray://c/{name}",),
        client_urls=URLS,
        actor=name,
        serves=True,
        applied=100,
        place=name,
    )


@dataclass
class Model:
    """Members by id; the change of one plan takes effect at once."""

    members: dict[MemberId, Seen]
    removed: set[MemberId] = field(default_factory=set)
    actors: dict[str, MemberId] = field(default_factory=dict)
    leader: MemberId = NOBODY
    now: float = 0.0
    replace_after: float = DEADLINE
    log: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, count: int) -> Model:
        members = {one.id: one for one in (voter(f"member{n}") for n in range(1, count + 1))}
        model = cls(members, actors={one.actor: one.id for one in members.values()})
        model.elect()
        return model

    @property
    def voters(self) -> list[Seen]:
        return [member for member in self.members.values() if not member.is_learner]

    @property
    def names(self) -> list[str]:
        return sorted(member.name for member in self.members.values())

    def named(self, name: str) -> Seen:
        return next(member for member in self.members.values() if member.name == name)

    def change(self, member: Seen, **changes: object) -> None:
        self.members[member.id] = replace(member, **changes)  # type: ignore[arg-type]
        self.elect()

    def elect(self) -> None:
        """A majority of the voters at work has a leader."""
        working = [member for member in self.voters if member.serves]
        if len(working) * 2 <= len(self.voters):
            self.leader = NOBODY
        elif self.leader not in {member.id for member in working}:
            self.leader = working[0].id

    def facts(self) -> Facts:
        return Facts(
            cluster="c",
            token="token",
            members=tuple(self.members.values()),
            removed=frozenset(self.removed),
            actors=tuple(self.actors.items()),
            leader=self.leader,
            commit=100,
            client_urls=URLS,
            now=self.now,
            replace_after=self.replace_after,
        )

    def step(self, goal: Goal | None = None) -> Plan:
        """One plan, carried out."""
        decided = plan(self.facts(), goal)
        for step in decided.actors:
            if isinstance(step, StartActor):
                assert step.name not in self.actors, f"{step.name} has an actor already"
                self.actors[step.name] = step.member
                self.change(self.members[step.member], actor=step.name)
            else:
                assert isinstance(step, StopActor)
                del self.actors[step.name]
        if isinstance(decided.change, HandOver):
            assert self.members[decided.change.to].serves
            assert not self.members[decided.change.to].is_learner
            self.leader = decided.change.to
        elif decided.change is not None:
            self._apply(decided.change)
        if decided.change is not None:
            self.log.append(decided.change.reason)
        return decided

    def _apply(self, change: Propose) -> None:
        assert self.leader != NOBODY, "a change without a leader"
        match change.content:
            case MemberAdd(id=member_id, name=name, peer_urls=urls, is_learner=is_learner):
                assert member_id not in self.removed
                assert member_id not in self.members
                assert is_learner
                assert not [member for member in self.members.values() if member.is_learner]
                added = Seen(
                    id=member_id, name=name, is_learner=True, peer_urls=urls, client_urls=(), place=name
                )
                self.members[member_id] = added
            case MemberRemove(id=member_id):
                gone = self.members.pop(member_id)
                assert gone.is_learner or self.has_majority(), f"without {gone.name} there is no majority"
                self.removed.add(member_id)
            case MemberPromote(id=member_id):
                learner = self.members[member_id]
                assert learner.is_learner
                assert learner.serves
                self.members[member_id] = replace(learner, is_learner=False)
            case MemberUpdate(id=member_id, peer_urls=urls):
                self.members[member_id] = replace(self.members[member_id], peer_urls=urls)
            case MemberPublish(id=member_id, name=name, client_urls=urls):
                self.members[member_id] = replace(self.members[member_id], name=name, client_urls=urls)
        self.elect()

    def has_majority(self) -> bool:
        return len([member for member in self.voters if member.serves]) * 2 > len(self.voters)

    def start_all(self) -> None:
        """Every actor that can open has opened and caught up."""
        for member in list(self.members.values()):
            if member.actor and not member.is_quarantined and member.gone_since is None:
                self.change(member, serves=True, applied=100)

    def settle(self, goal: Goal | None = None, steps: int = 60) -> Plan:
        """Step until nothing is left to do, actors starting in between. The last plan."""
        for _ in range(steps):
            decided = self.step(goal)
            if decided.refusal:
                return decided
            self.start_all()
            if not decided.actors and decided.change is None and (goal is None or decided.is_done):
                return decided
        raise AssertionError(f"not settled: {decided.doing}, after {self.log}")
