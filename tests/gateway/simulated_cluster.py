"""Three members without consensus, threads or clocks: one state machine, and a leader that changes.

Whoever leads when a batch arrives applies it; the reply then may come at once, late, or never. A batch
that arrived at a leader may also stay in its queue and be applied when that leader has long been
deposed, as an old leader's entry may be committed by the new one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from etcray.gateway.delivery import Delivery, Lane, Send
from etcray.gateway.proposals import Proposals, Settled
from etcray.gateway.reads import Reads
from etcray.node import api
from etcray_storage.commands import BatchAnswer, CommandKind, ReadKind
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import NOBODY, MemberId, Term
from tests.gateway.local_member import LocalMember

MEMBERS = (MemberId(1), MemberId(2), MemberId(3))


class SimulatedCluster:
    """Drives `Proposals` and `Reads` by hand: `step` performs sends, deliveries and time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 100.0
        self.store = LocalMember()
        self.leader = MEMBERS[0]
        self.term = Term(1)
        self.dead: set[MemberId] = set()
        self.delivery = Delivery(MEMBERS)
        self.proposals = Proposals(self.delivery, rng)
        self.reads = Reads(self.delivery, linearizable=True)
        self.settled: dict[object, Settled] = {}
        self.on_the_way: list[Callable[[], None]] = []
        """Calls and replies under way, each to be delivered in any order, or lost."""
        self.sends: list[Send] = []
        self.applied_copies = 0

    # --- what a test does -------------------------------------------------------------------------

    def put(self, key: str) -> None:
        request = rpc.PutRequest(key=key.encode(), value=b"v").SerializeToString()
        self.proposals.submit(self.now, CommandKind.PUT, request, key)

    def get(self, key: str, ticket: object) -> None:
        request = rpc.RangeRequest(key=key.encode()).SerializeToString()
        self.reads.submit(self.now, ReadKind.RANGE, request, ticket)

    def elect(self, member: MemberId) -> None:
        self.leader = member
        self.term = Term(self.term + 1)

    def advance(self) -> None:
        """What the shell does once a turn: send what is due, look around when something is stuck."""
        self.proposals.advance(self.now)
        self.reads.advance(self.now)
        for send in self.delivery.sends(self.now):
            self.sends.append(send)
            self.on_the_way.append(lambda send=send: self.arrive(send))  # type: ignore[misc]
        if self.delivery.should_probe(self.now):
            for member in MEMBERS:
                if member not in self.dead:
                    self.on_the_way.append(lambda member=member: self._poll(member))  # type: ignore[misc]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.delivery.tick(self.now)
        self._record(self.proposals.tick(self.now))
        self._record(self.reads.tick(self.now))

    def run_until_settled(self, count: int) -> None:
        """A healthy network from now on."""
        for _ in range(2_000):
            if len(self.settled) == count:
                return
            self.advance()
            under_way, self.on_the_way = self.on_the_way, []
            for deliver in under_way:
                deliver()
            self.pass_time(0.02)
        raise AssertionError(f"{len(self.settled)} of {count} settled; leader known: {self.delivery.leader}")

    # --- the members ------------------------------------------------------------------------------

    def arrive(self, send: Send, *, lose_reply: bool = False) -> None:
        """A call reaches its member."""
        if send.member in self.dead:
            self.on_the_way.append(lambda: self.delivery.unreachable(self.now, send))
            return
        if send.member != self.leader:
            leader, term = self.leader, self.term
            self.on_the_way.append(lambda: self.delivery.refused(self.now, send, leader, term))
            return
        if send.lane is Lane.PROPOSE:
            answer = self.store.apply(send.data)
            self.applied_copies += 1
            if not lose_reply:
                self.on_the_way.append(lambda term=self.term: self._answer(send, answer, term))  # type: ignore[misc]
            return
        request = api.decode_read_request(send.data)
        answers = [self.store.machine.read(ReadKind.RANGE, data) for data in request.requests]
        reply = api.ReadReply(
            api.Outcome.ANSWERED,
            send.member,
            self.term,
            send.member,
            [a.revision for a in answers],
            [a.error for a in answers],
            [a.body for a in answers],
        )
        self.on_the_way.append(lambda: self._record(self.reads.answered(self.now, send.parcel, reply)))

    def apply_late(self, send: Send) -> None:
        """A copy that hung somewhere is committed after all; nobody waits for its reply."""
        self.store.apply(send.data)
        self.applied_copies += 1

    def _answer(self, send: Send, answer: BatchAnswer, term: Term) -> None:
        self._record(self.proposals.answered(self.now, send.parcel, answer, send.member, send.member, term))

    def _poll(self, member: MemberId) -> None:
        if member not in self.dead:
            known = self.leader if self.leader not in self.dead else NOBODY
            self.delivery.heard(member, known, self.term)

    def _record(self, settled: list[Settled]) -> None:
        for one in settled:
            assert one.ticket not in self.settled, f"{one.ticket} was answered twice"
            self.settled[one.ticket] = one

    # --- what a test checks -----------------------------------------------------------------------

    def version_of(self, key: str) -> int:
        """How often the key was put; 0 if never."""
        request = rpc.RangeRequest(key=key.encode(), serializable=True).SerializeToString()
        response = rpc.RangeResponse.FromString(self.store.machine.read(ReadKind.RANGE, request).body)
        return response.kvs[0].version if response.kvs else 0

    def mod_revision_of(self, key: str) -> int:
        request = rpc.RangeRequest(key=key.encode(), serializable=True).SerializeToString()
        response = rpc.RangeResponse.FromString(self.store.machine.read(ReadKind.RANGE, request).body)
        return response.kvs[0].mod_revision
