"""Batches of reads: linearizable ones to the leader, serializable ones to any member.

Pure: `now` is given. Reads change nothing, so a batch that is lost is simply sent again, to whoever
`Delivery` finds. What gathers while batches are on their way leaves together, as with proposals. A
linearizable batch is answered at a point of the log after it arrived at the leader, so each read sees
every write that was answered before the read was submitted.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from etcray.gateway.delivery import Delivery, Lane
from etcray.gateway.gathering import FURTHER_READS_MIN, Gathering
from etcray.gateway.proposals import REQUEST_SECONDS_MAX, Settled
from etcray.node import api
from etcray.tuning import DEFAULT_TUNING, Tuning
from etcray_storage import limits
from etcray_storage.commands import ReadKind
from etcray_storage.errors import REQUEST_TOO_MANY_REQUESTS, TIMEOUT, error_by_number
from etcray_storage.types import MemberId, Term


class _Read(NamedTuple):
    kind: ReadKind
    request: bytes
    ticket: Any
    deadline: float


class _Batch(NamedTuple):
    reads: list[_Read]
    sent_at: float


class Reads:
    """The reads of one sort, linearizable or serializable, that are not answered yet."""

    def __init__(self, delivery: Delivery, *, linearizable: bool, tuning: Tuning = DEFAULT_TUNING) -> None:
        self._delivery = delivery
        self._tuning = tuning
        self._linearizable = linearizable
        self.gathering = Gathering(
            further_min=FURTHER_READS_MIN,
            batch_max=tuning.gateway_read_batch_requests,
            in_flight_max=tuning.gateway_read_batches_in_flight,
        )
        self._lane = Lane.READ_LINEARIZABLE if linearizable else Lane.READ_SERIALIZABLE
        self._pending: deque[_Read] = deque()
        self._in_flight: dict[int, _Batch] = {}
        """By parcel number."""
        self._unanswered = 0
        self._waiting_bytes = 0
        self.batch_count = 0
        self.read_count = 0

    @property
    def pending_count(self) -> int:
        return len(self._pending) + self._unanswered

    def submit(self, now: float, kind: ReadKind, request: bytes, ticket: Any) -> None:
        """Take a validated read. Raises `EtcdError` when too many wait already."""
        waiting_bytes = self._waiting_bytes + len(request)
        if self.pending_count >= limits.READS_PENDING_MAX or waiting_bytes > limits.PENDING_BYTES_MAX:
            raise error_by_number(REQUEST_TOO_MANY_REQUESTS.number)
        self._waiting_bytes = waiting_bytes
        self._pending.append(_Read(kind, request, ticket, now + REQUEST_SECONDS_MAX))

    def advance(self, now: float) -> None:
        """Hand what is due to the delivery."""
        while self._pending and self.gathering.may_send(
            now, pending=len(self._pending), in_flight=len(self._in_flight)
        ):
            self._send_batch(now)

    def _send_batch(self, now: float) -> None:
        count = min(len(self._pending), self._tuning.gateway_read_batch_requests)
        batch = [self._pending.popleft() for _ in range(count)]
        request = api.ReadRequest(
            self._linearizable, bytes([read.kind for read in batch]), [read.request for read in batch]
        )
        self._in_flight[self._delivery.add(self._lane, api.encode(request))] = _Batch(batch, now)
        self._unanswered += count
        self.batch_count += 1
        self.read_count += count

    def answered(self, now: float, parcel: int, reply: api.ReadReply) -> list[Settled]:
        """A member answered; a second answer to the same parcel changes nothing."""
        flight = self._in_flight.pop(parcel, None)
        if flight is None:
            return []
        batch = flight.reads
        assert len(reply.errors) == len(batch), f"{len(reply.errors)} answers for {len(batch)} reads"
        self._unanswered -= len(batch)
        self.gathering.answered(
            now,
            sent_at=flight.sent_at,
            count=len(batch),
            pending=len(self._pending),
            unanswered=self._unanswered,
        )
        self._waiting_bytes -= sum(len(read.request) for read in batch)
        self._delivery.answered(parcel, reply.member, reply.leader, reply.term)
        return [
            Settled(
                read.ticket,
                error_by_number(number) if number else None,
                revision,
                body,
                reply.member,
                reply.term,
            )
            for read, number, revision, body in zip(
                batch, reply.errors, reply.revisions, reply.bodies, strict=True
            )
        ]

    def tick(self, now: float) -> list[Settled]:
        """The reads whose time is over. A batch all of whose reads are over is given up."""
        expired: list[_Read] = []
        while self._pending and self._pending[0].deadline <= now:
            expired.append(self._pending.popleft())
        for parcel, (batch, _sent_at) in list(self._in_flight.items()):
            if batch[-1].deadline <= now:
                del self._in_flight[parcel]
                self._unanswered -= len(batch)
                self._delivery.remove(parcel)
                expired += batch
        self._waiting_bytes -= sum(len(read.request) for read in expired)
        return [_timed_out(read) for read in expired]


def _timed_out(read: _Read) -> Settled:
    return Settled(read.ticket, error_by_number(TIMEOUT.number), 0, b"", MemberId(0), Term(0))
