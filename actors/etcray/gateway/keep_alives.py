"""Renewals of leases, gathered over all streams of a gateway, to the leader.

Pure: `now` is given. A renewal changes nothing but the leader's clock for that lease, so a batch that is
lost is simply sent again, to whoever leads then. A lease that the leader does not know, or that has
ended, is answered with a TTL of 0, which is no error.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from etcray.gateway.delivery import Delivery, Lane
from etcray.gateway.gathering import FURTHER_READS_MIN, Gathering
from etcray.gateway.proposals import REQUEST_SECONDS_MAX, Settled
from etcray.node import api
from etcray_storage import limits, wire
from etcray_storage.errors import REQUEST_TOO_MANY_REQUESTS, TIMEOUT, error_by_number
from etcray_storage.types import MemberId, Term


class _KeepAlive(NamedTuple):
    lease: int
    ticket: Any
    deadline: float


class _Batch(NamedTuple):
    keep_alives: list[_KeepAlive]
    sent_at: float


class KeepAlives:
    """The renewals that are not answered yet."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.gathering = Gathering(
            further_min=FURTHER_READS_MIN,
            batch_max=limits.KEEP_ALIVE_BATCH_LEASES_MAX,
            in_flight_max=limits.KEEP_ALIVE_BATCHES_IN_FLIGHT_MAX,
        )
        self._pending: deque[_KeepAlive] = deque()
        self._in_flight: dict[int, _Batch] = {}
        """By parcel number."""
        self._unanswered = 0
        self.batch_count = 0
        self.keep_alive_count = 0

    @property
    def pending_count(self) -> int:
        return len(self._pending) + self._unanswered

    def submit(self, now: float, lease: int, ticket: Any) -> None:
        """Take a renewal. Raises `EtcdError` when too many wait already."""
        if self.pending_count >= limits.KEEP_ALIVES_PENDING_MAX:
            raise error_by_number(REQUEST_TOO_MANY_REQUESTS.number)
        self._pending.append(_KeepAlive(lease, ticket, now + REQUEST_SECONDS_MAX))

    def advance(self, now: float) -> None:
        """Hand what is due to the delivery."""
        while self._pending and self.gathering.may_send(
            now, pending=len(self._pending), in_flight=len(self._in_flight)
        ):
            self._send_batch(now)

    def _send_batch(self, now: float) -> None:
        count = min(len(self._pending), limits.KEEP_ALIVE_BATCH_LEASES_MAX)
        batch = [self._pending.popleft() for _ in range(count)]
        request = api.KeepAliveRequest([keep_alive.lease for keep_alive in batch])
        self._in_flight[self._delivery.add(Lane.KEEP_ALIVE, api.encode(request))] = _Batch(batch, now)
        self._unanswered += count
        self.batch_count += 1
        self.keep_alive_count += count

    def answered(self, now: float, parcel: int, reply: api.KeepAliveReply) -> list[Settled]:
        """The leader answered; a second answer to the same parcel changes nothing."""
        flight = self._in_flight.pop(parcel, None)
        if flight is None:
            return []
        batch = flight.keep_alives
        assert len(reply.ttls) == len(batch), f"{len(reply.ttls)} answers for {len(batch)} renewals"
        self._unanswered -= len(batch)
        self.gathering.answered(
            now,
            sent_at=flight.sent_at,
            count=len(batch),
            pending=len(self._pending),
            unanswered=self._unanswered,
        )
        self._delivery.answered(parcel, reply.member, reply.leader, reply.term)
        return [
            Settled(
                keep_alive.ticket,
                None,
                reply.revision,
                wire.varint_field(2, keep_alive.lease) + wire.varint_field(3, ttl),
                reply.member,
                reply.term,
            )
            for keep_alive, ttl in zip(batch, reply.ttls, strict=True)
        ]

    def tick(self, now: float) -> list[Settled]:
        """The renewals whose time is over. A batch all of which are over is given up."""
        expired: list[_KeepAlive] = []
        while self._pending and self._pending[0].deadline <= now:
            expired.append(self._pending.popleft())
        for parcel, (batch, _sent_at) in list(self._in_flight.items()):
            if batch[-1].deadline <= now:
                del self._in_flight[parcel]
                self._unanswered -= len(batch)
                self._delivery.remove(parcel)
                expired += batch
        return [_timed_out(keep_alive) for keep_alive in expired]


def _timed_out(keep_alive: _KeepAlive) -> Settled:
    return Settled(keep_alive.ticket, error_by_number(TIMEOUT.number), 0, b"", MemberId(0), Term(0))
