"""What a member answers gateways, up to the point where it has to wait.

Each call is a generator, which yields what it waits for: see `waiters`.

How a change of members is proposed, and why in this order:

1. A read index: everything that was committed before the call is applied here, and this member leads.
2. Was this very batch applied before, and only its answer got lost? Then it is proposed as it is, and the
   state machine gives the remembered answer. Without this step a removal that had succeeded would be asked
   of the rules again, and be refused because the member is gone.
3. The leader's rules (`reconfiguration`). A refusal is an answer, though it is nowhere remembered: asked
   again, the rules may say something else.
4. The proposal, as an entry of kind MEMBERSHIP. Consensus takes one only if no other is under way.
   Between 3 and 4 another change may have been applied; the state machine then has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcray.node.api import (
    KeepAliveReply,
    Outcome,
    ProposeReply,
    ReadReply,
    ReadRequest,
    TransferReply,
    decode_keep_alive_request,
    decode_read_request,
    decode_transfer_request,
)
from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.leases import LeaseKeeper
from etcray.node.reconfiguration import LeaderView, objection
from etcray.node.waiters import Steps, Wait
from etcray.raft.errors import NotLeaderError, ProposalDroppedError, TransferRefusedError
from etcray.raft.ready import Role
from etcray_storage import errors
from etcray_storage.commands import (
    Batch,
    BatchAnswer,
    Payload,
    ReadKind,
    decode_batch,
    encode_payload,
    is_reconfiguration,
)
from etcray_storage.limits import MEMBERS_HEALTHY_ELECTION_TIMEOUTS, TRANSFER_BEFORE_STOP_SECONDS
from etcray_storage.mvcc.rows import ValueReader
from etcray_storage.types import NOBODY, EntryKind, MemberId

ANSWER_TIMEOUT_SECONDS: Final = 10.0
"""Longer than a gateway waits (7 s): the call ends in any case, so abandoned calls do not pile up."""


class Calls:
    """The calls that need consensus. Any thread may make any of them."""

    def __init__(
        self,
        member: MemberId,
        applier: Applier,
        driver: Driver,
        leases: LeaseKeeper,
        tables: Callable[[], ValueReader],
        clock: Callable[[], float],
        time_ms: Callable[[], int],
        election_seconds: float,
    ) -> None:
        self._member = member
        self._applier = applier
        self._driver = driver
        self._leases = leases
        self._tables = tables
        self._clock = clock
        self._time_ms = time_ms
        self._election_seconds = election_seconds

    # --- proposals ----------------------------------------------------------------------------

    def propose(self, encoded_batch: bytes) -> Steps[ProposeReply]:
        """Replicate a batch and return its answers once they are applied here.

        Raises msgspec.DecodeError for bytes that are no batch; nothing has entered the log then.
        """
        batch = decode_batch(encoded_batch)
        if len(batch.kinds) == 1 and is_reconfiguration(batch):
            refusal = yield from self._examine(batch)
            if refusal is not None:
                return refusal
            return (yield from self._propose(batch, encoded_batch, EntryKind.MEMBERSHIP))
        return (yield from self._propose(batch, encoded_batch, EntryKind.COMMANDS))

    def _propose(self, batch: Batch, encoded_batch: bytes, kind: EntryKind) -> Steps[ProposeReply]:
        batch_id = (batch.session, batch.sequence)
        waiter = self._applier.expect(batch_id)
        try:
            self._driver.propose(encode_payload(Payload(self._time_ms(), [encoded_batch])), kind=kind)
        except NotLeaderError as e:
            self._applier.forget(batch_id, waiter)
            return self._propose_reply(Outcome.NOT_LEADER, leader=e.leader)
        except ProposalDroppedError:
            self._applier.forget(batch_id, waiter)
            return self._propose_reply(Outcome.BUSY)
        yield Wait(waiter, ANSWER_TIMEOUT_SECONDS)
        if waiter.value is None:
            self._applier.forget(batch_id, waiter)
            return self._propose_reply(Outcome.NOT_LEADER)
        return self._propose_reply(Outcome.ANSWERED, answer=waiter.value)

    def _examine(self, batch: Batch) -> Steps[ProposeReply | None]:
        """What is answered to a change of members instead of proposing it; None: propose it."""
        try:
            waiter = self._driver.read_index()
        except NotLeaderError as e:
            return self._propose_reply(Outcome.NOT_LEADER, leader=e.leader)
        yield Wait(waiter, ANSWER_TIMEOUT_SECONDS)
        if waiter.value is None:
            return self._propose_reply(Outcome.NOT_LEADER)
        with self._applier.state:
            machine = self._applier.machine
            if machine.remembers(batch.session, batch.sequence):
                return None
            members, revision = machine.members, machine.revision
        status = self._driver.status()
        lately = self._clock() - MEMBERS_HEALTHY_ELECTION_TIMEOUTS * self._election_seconds
        view = LeaderView(
            self._member,
            members,
            status.last_index,
            {peer.member: peer.match_index for peer in status.peers},
            frozenset({self._member, *(peer.member for peer in status.peers if peer.heard_at >= lately)}),
        )
        refused = objection(batch.kinds[0], batch.requests[0], view)
        if refused is None:
            return None
        answer = BatchAnswer(batch.session, batch.sequence, [revision], [refused.number], [b""])
        return self._propose_reply(Outcome.ANSWERED, answer=answer)

    def _propose_reply(
        self, outcome: Outcome, *, leader: MemberId | None = None, answer: BatchAnswer | None = None
    ) -> ProposeReply:
        state = self._driver.soft_state
        known = state.leader if leader is None else leader
        return ProposeReply(outcome, known, state.term, self._member, answer)

    # --- reads --------------------------------------------------------------------------------

    def read(self, encoded_request: bytes) -> Steps[ReadReply]:
        """Answer reads from the state machine, after a ReadIndex round if they ask for it."""
        request = decode_read_request(encoded_request)
        if request.linearizable:
            try:
                waiter = self._driver.read_index()
            except NotLeaderError as e:
                return self._no_reads(e.leader)
            yield Wait(waiter, ANSWER_TIMEOUT_SECONDS)
            if waiter.value is None:
                return self._no_reads(self._driver.soft_state.leader)
        return self._answer_reads(request)

    def _answer_reads(self, request: ReadRequest) -> ReadReply:
        answers = self._applier.read(request.kinds, request.requests, self._tables())
        if request.linearizable and ReadKind.LEASE_TIME_TO_LIVE in request.kinds:
            filled = self._leases.fill_in_remaining(request.kinds, answers)
            if filled is None:
                return self._no_reads(self._driver.soft_state.leader)
            answers = filled
        state = self._driver.soft_state
        return ReadReply(
            Outcome.ANSWERED,
            state.leader,
            state.term,
            self._member,
            [answer.revision for answer in answers],
            [answer.error for answer in answers],
            [answer.body for answer in answers],
        )

    def _no_reads(self, leader: MemberId) -> ReadReply:
        return ReadReply(Outcome.NOT_LEADER, leader, self._driver.soft_state.term, self._member, [], [], [])

    # --- leases -------------------------------------------------------------------------------

    def keep_alive(self, encoded_request: bytes) -> Steps[KeepAliveReply]:
        """Renew leases, once a majority has confirmed that this member leads."""
        request = decode_keep_alive_request(encoded_request)
        try:
            waiter = self._driver.read_index()
        except NotLeaderError as e:
            return self._keep_alive_reply(e.leader)
        yield Wait(waiter, ANSWER_TIMEOUT_SECONDS)
        if waiter.value is None:
            return self._keep_alive_reply(self._driver.soft_state.leader)
        with self._applier.state:  # nothing is half applied: the leases are those of this revision
            revision = self._applier.machine.revision
        ttls = yield from self._leases.renew(request.leases, ANSWER_TIMEOUT_SECONDS)
        return self._keep_alive_reply(self._driver.soft_state.leader, revision, ttls)

    def _keep_alive_reply(
        self, leader: MemberId, revision: int = 0, ttls: list[int] | None = None
    ) -> KeepAliveReply:
        term = self._driver.soft_state.term
        if ttls is None:
            return KeepAliveReply(Outcome.NOT_LEADER, leader, term, self._member, 0, [])
        return KeepAliveReply(Outcome.ANSWERED, leader, term, self._member, revision, ttls)

    # --- leadership ---------------------------------------------------------------------------

    def transfer_leadership(self, encoded_request: bytes) -> Steps[TransferReply]:
        """Hand the leadership to another voter; answered once this member has seen another leader."""
        target = decode_transfer_request(encoded_request).target
        return (yield from self._hand_to(target, 2 * self._election_seconds))

    def _hand_to(self, target: MemberId, seconds: float) -> Steps[TransferReply]:
        if target == self._member and self._driver.soft_state.role is Role.LEADER:
            return self._transfer_reply(Outcome.ANSWERED)
        try:
            waiter = self._driver.transfer_leadership(target)
        except NotLeaderError as e:
            return self._transfer_reply(Outcome.NOT_LEADER, leader=e.leader)
        except TransferRefusedError:
            return self._transfer_reply(Outcome.ANSWERED, error=errors.BAD_LEADER_TRANSFEREE.number)
        end = self._clock() + seconds
        while (now := self._clock()) < end:
            yield Wait(waiter, end - now)
            state = self._driver.soft_state
            if state.leader not in (NOBODY, self._member):
                return self._transfer_reply(Outcome.ANSWERED)
            if waiter.value is None:  # the time is up, or this member takes no part any more
                break
            waiter = self._driver.next_transition(state)
        self._driver.forget_transition(waiter)
        return self._transfer_reply(Outcome.ANSWERED, error=errors.TIMEOUT.number)

    def hand_over(self) -> Steps[bool]:
        """If this member leads: hand the leadership to whoever is best prepared, before it stops."""
        status = self._driver.status()
        lately = self._clock() - self._election_seconds
        ready = [
            (peer.match_index, peer.member)
            for peer in status.peers
            if not peer.is_learner and peer.heard_at >= lately
        ]
        if status.role is not Role.LEADER or not ready:
            return False
        reply = yield from self._hand_to(max(ready)[1], TRANSFER_BEFORE_STOP_SECONDS)
        return reply.outcome is Outcome.ANSWERED and reply.error == 0

    def _transfer_reply(
        self, outcome: Outcome, *, leader: MemberId | None = None, error: int = 0
    ) -> TransferReply:
        state = self._driver.soft_state
        known = state.leader if leader is None else leader
        return TransferReply(outcome, known, state.term, self._member, error)
