"""When leases are renewed, and when they count as lost. Pure: the time is an argument.

A lease is renewed after a third of its TTL. It counts as lost if the server says so, or if a full TTL has
gone by since the last renewal that succeeded was *sent*: the server starts counting when it receives
it, so the client gives up before, never after, the server does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from etcray.client.errors import LeaseLostError
from etcray_storage.errors import Code

logger = logging.getLogger("etcray.client")

OnLost = Callable[[], None]
"""Called when a lease is lost, by a thread or a task of the client, where it must not wait for anything."""

RENEWALS_PER_TTL: Final = 3
ATTEMPTS_PER_TTL: Final = 6
"""An unanswered renewal is given up after this part of the TTL, so that other endpoints get their turn."""
ATTEMPT_SECONDS_MIN: Final = 0.3
ATTEMPT_SECONDS_MAX: Final = 5.0
RETRY_SECONDS: Final = 0.1
EARLY_SHARE: Final = 0.1
"""A lease joins a round that comes so much of its interval too early: fewer rounds for many leases."""


@dataclass(slots=True)
class _Kept:
    ttl: float
    deadline: float
    next_renewal: float


class KeepAliveSchedule:
    """The leases that one client keeps alive. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, lease_id: int, ttl: int, deadline: float, now: float) -> None:
        """Keep a lease that lives until `deadline` if nothing is done."""
        interval = ttl / RENEWALS_PER_TTL
        self._kept[lease_id] = _Kept(ttl, deadline, min(now + interval, deadline - interval))

    def remove(self, lease_id: int) -> None:
        """Unknown leases are ignored: it may have been lost just now."""
        self._kept.pop(lease_id, None)

    def due(self, now: float, most: int) -> list[int]:
        """The leases to renew now, the most urgent first."""
        due = [
            (kept.next_renewal, lease_id)
            for lease_id, kept in self._kept.items()
            if kept.next_renewal - now <= kept.ttl / RENEWALS_PER_TTL * EARLY_SHARE
        ]
        if all(time > now for time, _ in due):
            return []
        return [lease_id for _, lease_id in sorted(due)[:most]]

    def attempt_seconds(self) -> float:
        """How long an answer is waited for: while one is, no other lease is looked after."""
        shortest = min((kept.ttl for kept in self._kept.values()), default=0.0)
        return min(max(shortest / ATTEMPTS_PER_TTL, ATTEMPT_SECONDS_MIN), ATTEMPT_SECONDS_MAX)

    def answered(self, lease_id: int, ttl: int, sent_at: float) -> float | None:
        """A renewal that was sent then was answered with this TTL. The lease's new deadline; None if the
        server does not know the lease any more, or we do not keep it any more."""
        kept = self._kept.get(lease_id)
        if kept is None:
            return None
        if ttl <= 0:
            del self._kept[lease_id]
            return None
        kept.ttl = ttl
        kept.deadline = sent_at + ttl
        kept.next_renewal = sent_at + ttl / RENEWALS_PER_TTL
        return kept.deadline

    def failed(self, lease_ids: Iterable[int], now: float) -> None:
        """No answer came for these."""
        for lease_id in lease_ids:
            if lease_id in self._kept:
                self._kept[lease_id].next_renewal = now + RETRY_SECONDS

    def take_expired(self, now: float) -> list[int]:
        """The leases whose time ran out; they are kept no longer."""
        expired = sorted(lease_id for lease_id, kept in self._kept.items() if kept.deadline <= now)
        for lease_id in expired:
            del self._kept[lease_id]
        return expired

    def seconds_to_next(self, now: float) -> float | None:
        """Until something has to be done; None if no lease is kept."""
        if not self._kept:
            return None
        return max(0.0, min(min(k.next_renewal, k.deadline) for k in self._kept.values()) - now)


def lost_error(lease_id: int) -> LeaseLostError:
    return LeaseLostError(Code.NOT_FOUND, f"lease {lease_id:x} is lost")


def loss_is_news(error: BaseException | None) -> bool:
    """True if a block that ended like this should end with the loss of its lease instead."""
    return error is None or (isinstance(error, Exception) and not isinstance(error, LeaseLostError))
