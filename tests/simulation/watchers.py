"""Watchers: they take events from any member, and must see each one, once, in order.

They poll as gateways do: the event ring first, history if they fell behind. What they get is compared with
what the first member that applied an entry made of it.
"""

from __future__ import annotations

from collections.abc import Callable

from etcray.node import api
from etcray.node.event_ring import columns_of
from etcray.node.peers import PeerUnreachableError
from tests.simulation.checker import Checker
from tests.simulation.hosts import Hosts, MemberProcess, open_member
from tests.simulation.scheduler import Process, World


class Watcher:
    """Watches all keys."""

    def __init__(self, number: int, world: World, hosts: Hosts, checker: Checker) -> None:
        self.name = f"watcher-{number}"
        self._world = world
        self._hosts = hosts
        self._checker = checker
        self.position = 1
        """Everything up to this revision was seen, or is compacted."""
        self.seen = 0
        self.missed = 0
        self.is_stopping = False
        self._next = 0
        """How many of the canonical changes are behind `position`."""

    def start(self, process: Process) -> None:
        process.spawn(self._run, self.name)

    def _run(self) -> None:
        while not self.is_stopping:
            running = [host.process for host in self._hosts.hosts.values() if host.is_open]
            if not running:
                self._world.sleep(0.1)
                continue
            process = self._world.pick(running)
            for _ in range(1 + int(self._world.rng.random() * 8)):
                if not self._poll(process):
                    self._world.sleep(0.05)
                    break

    def _call(self, process: MemberProcess, call: Callable[[], object]) -> object:
        try:
            return self._hosts.network.call(self.name, process.name, process, call, 3.0)
        except PeerUnreachableError:
            return None

    def _poll(self, process: MemberProcess) -> bool:
        poll = api.encode(api.WatchPoll(self.position, False, 300, 0.5))
        reply = self._call(process, lambda: open_member(process).watch(poll))
        if not isinstance(reply, api.WatchEvents) or reply.outcome is not api.Outcome.ANSWERED:
            return False
        if reply.missed:
            self.missed += 1
            return self._catch_up(process, reply.revision)
        self._take(reply.revisions, reply.keys, reply.events, reply.revision)
        return True

    def _catch_up(self, process: MemberProcess, target: int) -> bool:
        first = self.position + 1
        request = api.encode(api.HistoryRequest(b"\0", b"\0", first, target, False, 20, 1000))
        reply = self._call(process, lambda: open_member(process).history(request))
        if not isinstance(reply, api.HistoryReply) or reply.outcome is not api.Outcome.ANSWERED:
            return False
        if reply.compact_revision > first:
            self._skip(reply.compact_revision - 1)
            return True
        self._take(reply.revisions, reply.keys, reply.events, reply.through_revision)
        return True

    def _skip(self, through: int) -> None:
        """The past is gone."""
        changes = self._checker.changes
        while self._next < len(changes) and changes[self._next].main <= through:
            self._next += 1
        self.position = max(self.position, through)

    def _take(self, revisions: list[int], keys: list[bytes], events: list[bytes], through: int) -> None:
        due = self._checker.changes[self._next : self._next + len(revisions)]
        truth = columns_of(due, False)
        assert (revisions, keys, events) == (truth.revisions, truth.keys, truth.events), (
            f"{self.name} at {self.position} got {list(zip(revisions, keys, strict=True))}, "
            f"should be {list(zip(truth.revisions, truth.keys, strict=True))}"
        )
        self._next += len(revisions)
        self.seen += len(revisions)
        changes = self._checker.changes
        assert self._next == len(changes) or changes[self._next].main > through, (
            f"{self.name} was told that {through} is all, and {changes[self._next].main} is missing"
        )
        assert through >= self.position, f"{self.name} goes back from {self.position} to {through}"
        self.position = through
