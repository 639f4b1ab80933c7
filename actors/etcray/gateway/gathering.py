"""When the next batch leaves: at once when idle, and otherwise so that few batches carry much.

Pure: `now` is given. The same rules for proposals, reads and renewals.

A batch of commands costs some 15 ms of CPU over all processes before its first command does, so few clients
go in lock-step: while their batch is on its way, what arrives waits for the next one. Many clients go in two
halves, so that the gateway works for one half while the members work for the other. The bound is where half
the clients are worth a batch of their own: `FURTHER_COMMANDS_MIN`. A batch of reads is written to no log,
so that its bound is lower: `FURTHER_READS_MIN`.

When a batch was answered, its clients are about to ask again. A batch that leaves at that very moment
misses them, and they wait for the whole of the next round; unequal parts of the clients then take turns
for ever, and some wait two rounds. So a batch that leaves while nothing else is on its way waits until its
share of the clients is there, but never longer than a quarter of the last round. One client alone never
waits: it is all that the last round had.
"""

from __future__ import annotations

from typing import Final

FURTHER_COMMANDS_MIN: Final = 192
"""A further batch leaves beside those in flight only when at least this many commands wait."""
FURTHER_READS_MIN: Final = 64
"""The same for reads, and for renewals of leases."""
HOLD_SHARE: Final = 0.25
"""Of the last round's duration: how long a batch waits for the clients that were just answered."""
HOLD_SECONDS_MAX: Final = 0.008


class Gathering:
    """The policy for one sort of requests."""

    def __init__(self, *, further_min: int, batch_max: int, in_flight_max: int) -> None:
        self._further_min = further_min
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._clients = 0
        """Requests that the last round answered, that waited at its end or were on their way then."""
        self.hold_until = 0.0

    def answered(self, now: float, *, sent_at: float, count: int, pending: int, unanswered: int) -> None:
        """A batch of `count` requests came back while `pending` others waited for the next one and
        `unanswered` others were on their way."""
        self._clients = count + pending + unanswered
        self.hold_until = now + min(HOLD_SECONDS_MAX, HOLD_SHARE * (now - sent_at))

    def may_send(self, now: float, *, pending: int, in_flight: int) -> bool:
        """Whether a batch of what waits should leave now; ask again at `hold_until`."""
        if in_flight >= self._in_flight_max:
            return False
        half = (self._clients + 1) // 2
        if in_flight:
            return pending >= min(max(half, self._further_min), self._batch_max)
        share = half if half >= self._further_min else self._clients
        return now >= self.hold_until or pending >= min(share, self._batch_max)
