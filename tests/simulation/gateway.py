"""A gateway: the real rules of retry and delivery, with the simulated network beneath.

It does what `gateway.dispatcher` does with asyncio. A gateway that crashes forgets everything; the next
one opens a session of its own. What was submitted is then never answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from etcray.gateway.delivery import Delivery, Lane, Send
from etcray.gateway.keep_alives import KeepAlives
from etcray.gateway.proposals import Proposals, Settled
from etcray.gateway.reads import Reads
from etcray.node import api
from etcray_storage.commands import BatchAnswer, CommandKind, ReadKind
from tests.simulation.hosts import Hosts, open_member

OnSettled = Callable[[Settled], None]


class Gateway:
    def __init__(self, hosts: Hosts, name: str, on_answer: Callable[[BatchAnswer], None]) -> None:
        self._hosts = hosts
        self._world = hosts.world
        self._network = hosts.network
        self.name = name
        self._on_answer = on_answer
        """Sees every answer to a batch before the real code does."""
        self.delivery = Delivery(hosts.hosts)
        self.proposals = Proposals(self.delivery, random.Random(self._world.rng.getrandbits(64)))
        self.linearizable_reads = Reads(self.delivery, linearizable=True)
        self.serializable_reads = Reads(self.delivery, linearizable=False)
        self.keep_alives = KeepAlives(self.delivery)
        self._sources = (
            self.proposals,
            self.linearizable_reads,
            self.serializable_reads,
            self.keep_alives,
        )
        self.waiting: dict[Callable[[Settled | None], None], None] = {}
        """Whom to tell that nobody will answer."""
        self.is_dead = False
        self._is_scheduled = False
        self._is_ticking = False

    # --- what clients call ------------------------------------------------------------------------

    def command(self, kind: CommandKind, request: bytes, ticket: OnSettled) -> None:
        self.proposals.submit(self._world.now, kind, request, ticket)
        self._schedule()

    def read(self, kind: ReadKind, request: bytes, serializable: bool, ticket: OnSettled) -> None:
        reads = self.serializable_reads if serializable else self.linearizable_reads
        reads.submit(self._world.now, kind, request, ticket)
        self._schedule()

    def keep_alive(self, lease: int, ticket: OnSettled) -> None:
        self.keep_alives.submit(self._world.now, lease, ticket)
        self._schedule()

    def crash(self) -> None:
        self.is_dead = True
        for tell in list(self.waiting):
            tell(None)

    def members_changed(self) -> None:
        if not self.is_dead:
            self.delivery.set_members([h.id for h in self._hosts.hosts.values() if not h.is_retired])
            self._schedule()

    # --- the loop ---------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._world.after(0.00005, self._advance)

    def _advance(self) -> None:
        self._is_scheduled = False
        if self.is_dead:
            return
        now = self._world.now
        for source in self._sources:
            source.advance(now)
            if now < source.gathering.hold_until and source.pending_count:
                self._world.after(source.gathering.hold_until - now, self._schedule)
        for send in self.delivery.sends(now):
            self._perform(send)
        if self.delivery.should_probe(now):
            self._look_around()
        wakeup = self.delivery.next_wakeup(now)
        if wakeup is not None and not self._is_ticking:
            self._is_ticking = True
            self._world.after(wakeup - now, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        if self.is_dead:
            return
        now = self._world.now
        self.delivery.tick(now)
        for source in self._sources:
            self._settle(source.tick(now))
        self._schedule()

    def _settle(self, settled: list[Settled]) -> None:
        for one in settled:
            one.ticket(one)

    def _perform(self, send: Send) -> None:
        host = self._hosts.hosts.get(send.member)
        process = host.process if host is not None else None
        if host is None or process is None:
            self.delivery.unreachable(self._world.now, send)
            self._schedule()
            return

        def work() -> Any:
            member = open_member(process)
            if send.lane is Lane.PROPOSE:
                return member.propose(send.data)
            if send.lane is Lane.KEEP_ALIVE:
                return member.keep_alive(send.data)
            return member.read(send.data)

        self._network.cast(self.name, host.name, process, work, lambda reply: self._replied(send, reply))

    def _replied(self, send: Send, reply: Any) -> None:
        if self.is_dead:
            return
        now = self._world.now
        if reply is None:
            self.delivery.unreachable(now, send)
        elif reply.outcome is api.Outcome.BUSY:
            self.delivery.busy(now, send)
        elif reply.outcome is not api.Outcome.ANSWERED:
            self.delivery.refused(now, send, reply.leader, reply.term)
        elif send.lane is Lane.PROPOSE:
            self._on_answer(reply.answer)
            self._settle(
                self.proposals.answered(
                    now, send.parcel, reply.answer, reply.member, reply.leader, reply.term
                )
            )
        elif send.lane is Lane.KEEP_ALIVE:
            self._settle(self.keep_alives.answered(now, send.parcel, reply))
        elif send.lane is Lane.READ_LINEARIZABLE:
            self._settle(self.linearizable_reads.answered(now, send.parcel, reply))
        else:
            self._settle(self.serializable_reads.answered(now, send.parcel, reply))
        self._schedule()

    def _look_around(self) -> None:
        for host in self._hosts.hosts.values():
            process = host.process
            if process is not None:
                self._network.cast(
                    self.name,
                    host.name,
                    process,
                    lambda p=process: open_member(p).status(),  # type: ignore[misc]
                    self._heard,
                )

    def _heard(self, status: api.MemberStatus | None) -> None:
        if status is not None and not self.is_dead:
            self.delivery.heard(status.member, status.leader, status.term)
            self._schedule()
