"""Who changes the membership: a person with `member add`, and the supervisor that replaces broken members.

Everything goes through the log by way of a gateway of its own. Which members there are is taken from the
replicated list, and processes are started and stopped to fit it, as the supervisor does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etcray.gateway.proposals import Settled
from etcray.node import api
from etcray.spec import MemberSpec, derive_member_id, peer_url
from etcray_storage.commands import (
    BatchAnswer,
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberPublish,
    MemberRemove,
    encode_member_command,
)
from etcray_storage.types import MemberId, Membership
from tests.simulation.gateway import Gateway
from tests.simulation.hosts import Host, open_member

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

ROUND_SECONDS = 0.3

REPLACE_SECONDS = 0.5
"""How long a broken member is looked at before it is replaced."""


class Controller:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._hosts = simulation.hosts
        self._checker = simulation.checker
        self._gateways = [
            Gateway(simulation.hosts, f"controller{number}", self._answered) for number in range(3)
        ]
        """Several, because one gateway asks for one change after the other."""
        self._counts = simulation.hosts.counts
        self._successors: dict[MemberId, MemberId] = {}
        """Broken members, and who is to take their places."""
        self._published: set[MemberId] = {member.id for member in simulation.hosts.spec.members}
        self._pending: set[tuple[CommandKind, MemberId]] = set()
        self._number = len(simulation.hosts.spec.members)

    def _answered(self, answer: BatchAnswer) -> None:
        """A refusal by the leader's rules is not in the log."""
        if not any(answer.errors):
            self._checker.answered(answer)

    def start(self) -> None:
        self._world.after(ROUND_SECONDS, self._do_round)

    def members_changed(self) -> None:
        for gateway in self._gateways:
            gateway.members_changed()

    @property
    def membership(self) -> Membership:
        """As of the newest entry that anybody has applied."""
        return self._checker.memberships[-1] if self._checker.memberships else Membership()

    @property
    def is_done(self) -> bool:
        """Nobody is broken, and nobody is on the way in."""
        return not self._successors and not any(
            self._hosts.hosts[member].is_quarantined
            for member in (*self.membership.voters, *self.membership.learners)
        )

    # --- what is asked for ------------------------------------------------------------------------

    def _propose(
        self,
        kind: CommandKind,
        command: MemberAdd | MemberPromote | MemberRemove | MemberPublish,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        name = (kind, command.id)
        if name in self._pending:
            return
        self._pending.add(name)

        def settled(answer: Settled) -> None:
            self._pending.discard(name)
            if answer.error is None:
                self._counts[kind.name.lower()] += 1
                then()
            else:
                self._counts[f"{kind.name.lower()} refused"] += 1

        gateway: Gateway = self._world.pick(self._gateways)
        gateway.command(kind, encode_member_command(command), settled)

    def add_learner(self) -> MemberId:
        """Ask for a new member; its process is started once it is on the list."""
        self._number += 1
        name = f"m{self._number}"
        member = derive_member_id("simulated", "token", name)
        spec = MemberSpec(id=member, name=name, data_directory=f"/{name}", joining=True)
        host = self._hosts.add(spec)
        host.disk.write_seconds = 0.001
        url = peer_url("simulated", name)
        self._propose(CommandKind.MEMBER_ADD, MemberAdd(member, "", (url,), True))
        return member

    def promote(self, member: MemberId, then: Callable[[], None] = lambda: None) -> None:
        self._propose(CommandKind.MEMBER_PROMOTE, MemberPromote(member), then)

    def remove(self, member: MemberId) -> None:
        self._propose(CommandKind.MEMBER_REMOVE, MemberRemove(member))

    def transfer(self) -> None:
        leaders = self._simulation.leaders()
        others = [voter for voter in self.membership.voters if leaders and voter != leaders[-1].id]
        if others and leaders[-1].process is not None:
            process = leaders[-1].process
            request = api.encode(api.TransferRequest(self._world.pick(others)))
            process.spawn(lambda: open_member(process).transfer_leadership(request), "transfer")
            self._counts["transfers"] += 1

    # --- what has to fit --------------------------------------------------------------------------

    def _do_round(self) -> None:
        membership = self.membership
        listed = {*membership.voters, *membership.learners}
        for host in list(self._hosts.hosts.values()):
            if host.id in listed:
                self._keep(host)
            elif host.was_listed and not host.is_retired:
                self._retire(host)
        self._replace_broken(membership)
        self._world.after(ROUND_SECONDS * (0.5 + self._world.rng.random()), self._do_round)

    def _keep(self, host: Host) -> None:
        host.was_listed = True
        if host.process is None:
            self._hosts.start(host)
        elif host.is_open and host.id not in self._published:
            published = MemberPublish(host.id, host.name, ())
            self._propose(CommandKind.MEMBER_PUBLISH, published, lambda: self._published.add(host.id))

    def _retire(self, host: Host) -> None:
        """It was removed. It stays for a while, not knowing it perhaps; but not before somebody leads."""
        if not host.is_leaving:
            host.is_leaving = True
            self._world.after(0.3 + 4 * self._world.rng.random(), lambda: self._stop(host))

    def _stop(self, host: Host) -> None:
        if not any(leader is not host for leader in self._simulation.leaders()):
            self._world.after(0.2, lambda: self._stop(host))
            return
        host.is_retired = True
        if host.process is not None:
            host.process.exit()
        self._members_changed()

    def _members_changed(self) -> None:
        self._hosts.on_members()

    def _replace_broken(self, membership: Membership) -> None:
        """Add a learner; when it has caught up, remove the broken one and make the learner a voter."""
        for member in (*membership.voters, *membership.learners):
            if not self._hosts.hosts[member].is_quarantined:
                continue
            if member in membership.learners:
                self.remove(member)
            elif member not in self._successors:
                self._successors[member] = self.add_learner()
        for broken, successor in list(self._successors.items()):
            host = self._hosts.hosts[successor]
            if successor in membership.voters:
                del self._successors[broken]
                self._counts["replaced"] += 1
            elif host.is_quarantined or host.is_retired:
                self._successors[broken] = self.add_learner()
            elif successor not in membership.learners:
                self._add_again(successor, host)
            elif broken in membership.voters:
                if self._has_caught_up(host):
                    self.remove(broken)
            else:
                self.promote(successor)

    def _add_again(self, member: MemberId, host: Host) -> None:
        """The answer to the first attempt was an error, or is still to come."""
        if not host.was_listed:
            command = MemberAdd(member, "", (peer_url("simulated", host.name),), True)
            self._propose(CommandKind.MEMBER_ADD, command)

    def _has_caught_up(self, host: Host) -> bool:
        return self._simulation.applied_index(host) * 10 >= (len(self._checker.applied) - 1) * 9
