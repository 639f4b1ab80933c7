"""Batches of commands, each applied exactly once however often it is sent.

Pure: `now` is given. Commands gather while a batch is on its way; when nothing is, the next one leaves
at once, so an idle gateway adds no delay and a busy one makes its batches larger by itself.

A batch, once encoded, never changes: `Delivery` may send it to several leaders, and the state machine
knows it by (session, sequence). Its commands wait for their answers here, each with a deadline. A
command whose deadline passed is answered with a timeout, but its batch stays until it is answered
itself, because only then may the state machine forget it (`Batch.acknowledged`). A change of members is
alone in its batch: the leader puts it into an entry of its own kind.

The session is opened with sequence 0 before the first batch. When the state machine has forgotten it
(very many gateways came and went), a batch is refused as a whole. If it was sent once only, it certainly
was not applied, and its commands move to a new session. If it was sent twice, the first may have been
applied: its commands get an error that says so, as a timeout does.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Final, NamedTuple

from etcray.gateway.delivery import Delivery, Lane
from etcray.gateway.gathering import FURTHER_COMMANDS_MIN, Gathering
from etcray.tuning import DEFAULT_TUNING, Tuning
from etcray_storage import commands, limits
from etcray_storage.commands import BatchAnswer, CommandKind
from etcray_storage.errors import (
    REQUEST_TOO_MANY_REQUESTS,
    SESSION_EXPIRED,
    TIMEOUT,
    EtcdError,
    error_by_number,
)
from etcray_storage.types import MemberId, Term

REQUEST_SECONDS_MAX: Final = 7.0
"""etcd's 5 s plus twice its election timeout."""


class Settled(NamedTuple):
    """What one command or read came to."""

    ticket: Any
    """What the submitter gave to know it by."""
    error: EtcdError | None
    revision: int
    body: bytes
    """The response without its header."""
    member: MemberId
    term: Term


class _Command(NamedTuple):
    kind: CommandKind
    request: bytes
    ticket: Any
    deadline: float


class _InFlight:
    __slots__ = ("commands", "expired", "sent_at", "sequence", "session")

    def __init__(self, session: int, sequence: int, batch: list[_Command], sent_at: float) -> None:
        self.sent_at = sent_at
        self.session = session
        self.sequence = sequence
        self.commands = batch
        self.expired = 0
        """So many commands, the first ones, were answered with a timeout."""

    @property
    def waiting(self) -> list[_Command]:
        return self.commands[self.expired :]


class Proposals:
    """The commands of one gateway that are not answered yet."""

    def __init__(self, delivery: Delivery, rng: random.Random, tuning: Tuning = DEFAULT_TUNING) -> None:
        self._delivery = delivery
        self._tuning = tuning
        self.gathering = Gathering(
            further_min=FURTHER_COMMANDS_MIN,
            batch_max=tuning.gateway_batch_requests,
            in_flight_max=tuning.gateway_batches_in_flight,
        )
        self._rng = rng
        self._pending: deque[_Command] = deque()
        self._in_flight: dict[int, _InFlight] = {}
        """By parcel number."""
        self._unanswered = 0
        """Commands in `_in_flight` that wait for their answer."""
        self._waiting_bytes = 0
        """Requests of all commands that wait, here or in flight."""
        self._session = 0
        self._session_open = False
        self._opening: int | None = None
        """The parcel that opens the session."""
        self._next_sequence = 1
        self._acknowledged = 0
        """Every batch of this session up to this sequence is answered."""
        self._answered_ahead: set[int] = set()
        self.batch_count = 0
        self.command_count = 0

    @property
    def pending_count(self) -> int:
        return len(self._pending) + self._unanswered

    def submit(self, now: float, kind: CommandKind, request: bytes, ticket: Any) -> None:
        """Take a validated command. Raises `EtcdError` when too many wait already."""
        waiting_bytes = self._waiting_bytes + len(request)
        if self.pending_count >= limits.PROPOSALS_PENDING_MAX or waiting_bytes > limits.PENDING_BYTES_MAX:
            raise error_by_number(REQUEST_TOO_MANY_REQUESTS.number)
        self._waiting_bytes = waiting_bytes
        self._pending.append(_Command(kind, request, ticket, now + REQUEST_SECONDS_MAX))

    def advance(self, now: float) -> None:
        """Hand what is due to the delivery: the session's opening, or batches."""
        if not self._pending:
            return
        if not self._session_open:
            self._open_session()
            return
        while self._pending and self._may_send(now):
            self._send_batch(now)

    def _open_session(self) -> None:
        if self._opening is None:
            self._session = self._rng.getrandbits(63) or 1
            self._next_sequence, self._acknowledged = 1, 0
            self._answered_ahead.clear()
            opening = commands.Batch(self._session, 0, 0, b"", [])
            self._opening = self._delivery.add(Lane.PROPOSE, commands.encode_batch(opening))

    def _may_send(self, now: float) -> bool:
        if self._next_sequence - self._acknowledged >= limits.SESSION_ANSWERS_MAX:
            return False  # one batch is stuck; its session must not remember more than it can
        return self.gathering.may_send(now, pending=len(self._pending), in_flight=len(self._in_flight))

    def _send_batch(self, now: float) -> None:
        pending = self._pending
        batch: list[_Command] = []
        size = 0
        while pending and len(batch) < self._tuning.gateway_batch_requests:
            size += len(pending[0].request)
            alone = pending[0].kind in commands.RECONFIGURATIONS
            if batch and (alone or size > self._tuning.gateway_batch_bytes):
                break
            batch.append(pending.popleft())
            if alone:
                break
        encoded = commands.encode_batch(
            commands.Batch(
                self._session,
                self._next_sequence,
                self._acknowledged,
                bytes([command.kind for command in batch]),
                [command.request for command in batch],
            )
        )
        number = self._delivery.add(Lane.PROPOSE, encoded)
        self._in_flight[number] = _InFlight(self._session, self._next_sequence, batch, now)
        self._next_sequence += 1
        self._unanswered += len(batch)
        self.batch_count += 1
        self.command_count += len(batch)

    def answered(
        self, now: float, parcel: int, answer: BatchAnswer, member: MemberId, leader: MemberId, term: Term
    ) -> list[Settled]:
        """A batch was applied, or refused because its session is unknown. A second answer to the same
        parcel, from an older attempt, changes nothing."""
        if not self._delivery.is_open(parcel):
            return []
        if parcel == self._opening:
            self._delivery.answered(parcel, member, leader, term)
            self._opening = None
            self._session_open = True
            return []
        flight = self._in_flight[parcel]
        attempts = self._delivery.attempts(parcel)
        assert (answer.session, answer.sequence) == (flight.session, flight.sequence), (
            f"batch {flight.sequence} got the answer of {answer.sequence}"
        )
        assert len(answer.errors) == len(flight.commands), (
            f"{len(answer.errors)} answers for {len(flight.commands)} commands"
        )
        self._delivery.answered(parcel, member, leader, term)
        del self._in_flight[parcel]
        self._unanswered -= len(flight.commands) - flight.expired
        count = len(flight.commands)
        self.gathering.answered(
            now, sent_at=flight.sent_at, count=count, pending=len(self._pending), unanswered=self._unanswered
        )
        if answer.errors and answer.errors[0] == SESSION_EXPIRED.number:
            self._expire(flight.session)
            if attempts == 1:
                self._requeue(flight)
                return []
        else:
            self._acknowledge(flight)
        self._waiting_bytes -= sum(len(command.request) for command in flight.waiting)
        return self._settle(flight, answer, member, term)

    @staticmethod
    def _settle(flight: _InFlight, answer: BatchAnswer, member: MemberId, term: Term) -> list[Settled]:
        first = flight.expired
        return [
            Settled(command.ticket, error_by_number(number) if number else None, revision, body, member, term)
            for command, number, revision, body in zip(
                flight.waiting,
                answer.errors[first:],
                answer.revisions[first:],
                answer.bodies[first:],
                strict=True,
            )
        ]

    def _acknowledge(self, flight: _InFlight) -> None:
        if flight.session != self._session:
            return
        self._answered_ahead.add(flight.sequence)
        while self._acknowledged + 1 in self._answered_ahead:
            self._acknowledged += 1
            self._answered_ahead.remove(self._acknowledged)

    def _expire(self, session: int) -> None:
        if session == self._session:
            self._session_open = False

    def _requeue(self, flight: _InFlight) -> None:
        """Never applied: the commands go first into the next session's batches."""
        self._pending.extendleft(reversed(flight.waiting))

    def tick(self, now: float) -> list[Settled]:
        """The commands whose time is over."""
        expired: list[_Command] = []
        while self._pending and self._pending[0].deadline <= now:
            expired.append(self._pending.popleft())
        for flight in self._in_flight.values():
            while flight.expired < len(flight.commands) and flight.commands[flight.expired].deadline <= now:
                expired.append(flight.commands[flight.expired])
                flight.expired += 1
                self._unanswered -= 1
        self._waiting_bytes -= sum(len(command.request) for command in expired)
        return [_timed_out(command) for command in expired]


def _timed_out(command: _Command) -> Settled:
    return Settled(command.ticket, error_by_number(TIMEOUT.number), 0, b"", MemberId(0), Term(0))
