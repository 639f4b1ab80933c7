"""When the next batch leaves: at once when idle, and otherwise so that few batches carry much.

Pure: `now` is given. Two rules, for proposals and for reads alike.

Beside batches that are on their way, another one leaves only when as many requests wait as are under way
already: then the work is worth a call of its own.

When the last batch was answered, its clients are about to ask again. A batch that leaves at that very
moment misses them, and they wait for the whole of the next round; two halves of the clients then take
turns for ever, with twice the calls and twice the delay. So the next batch waits until as many requests
are there as were in the last round, but never longer than a quarter of that round. One client alone never
waits: its next request is as many as the last round had.
"""

from __future__ import annotations

from typing import Final

GATHER_MIN: Final = 16
"""A further batch leaves beside those in flight only when at least this many requests wait."""
HOLD_SHARE: Final = 0.25
"""Of the last round's duration: how long a batch waits for the clients that were just answered."""
HOLD_SECONDS_MAX: Final = 0.002


class Gathering:
    """The policy for one sort of requests."""

    def __init__(self, *, batch_max: int, in_flight_max: int) -> None:
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._expected = 0
        """Requests that the last round answered, or that waited at its end."""
        self.hold_until = 0.0

    def answered(self, now: float, *, sent_at: float, count: int, pending: int) -> None:
        """A batch of `count` requests came back while `pending` others waited."""
        self._expected = count + pending
        self.hold_until = now + min(HOLD_SECONDS_MAX, HOLD_SHARE * (now - sent_at))

    def may_send(self, now: float, *, pending: int, unanswered: int, in_flight: int) -> bool:
        """Whether a batch of what waits should leave now; ask again at `hold_until`."""
        if in_flight == 0:
            return now >= self.hold_until or pending >= min(self._expected, self._batch_max)
        if in_flight >= self._in_flight_max:
            return False
        return pending >= max(GATHER_MIN, min(unanswered, self._batch_max))
