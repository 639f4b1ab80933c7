"""What only the leader knows about leases: when they end.

Pure: `now` is given, in seconds of the leader's monotonic clock. Nothing here ends a lease: `expired`
names those whose time is over, and their end is a log entry, which has to be committed in the term of
the leader that decided it. A leader that was deposed without noticing can decide what it likes.

How long a lease lives
----------------------
Never shorter than its granted TTL after the grant was applied, or after the renewal was taken by the
leader. A new leader does not know when leases were renewed. It lets each one live for what the last
checkpoint in the log says, or else for its whole TTL, counted from the beginning of its leadership,
and for one election timeout more (clients had nobody to send renewals to).

So leader changes prolong the life of a lease that is not renewed. By how much is bounded by
checkpoints. Each leader records what a lease has left

- from an interval after the beginning of its leadership, if the lease was not renewed under it;
- from half of the TTL (at most 300 s) after the grant or the last renewal, otherwise: a client that
  renews in time, every third of the TTL, never causes a checkpoint;

and then once in every interval, which is an eighth of the TTL (at least 0.25 s, at most 300 s). What
is recorded does not contain the additional election timeout. Hence a lease ends at most

    TTL
    + min(TTL / 2, 300 s), if the leader changes at all
    + for each leader change: one interval, one round, and the time without a leader
    + one election timeout, if the lease is older than the leadership that ends it
    + one round (0.25 s) and the commit of the expiry

after its last renewal. A leadership shorter than an interval takes nothing off a lease's life. With
more than 1,000 leases due in a round, rounds count as many times as it takes: 4,000 checkpoints and
4,000 expiries a second.

A checkpoint must not cut short a lease that is renewed later. Story: 1. The leader records that 3 s
are left of lease 7. 2. A client renews it, and is told 60 s. 3. The leader dies; the next one finds 3 s
in the log. Therefore a lease with a lowered checkpoint is `lowered`, and the answer to its renewal has
to wait until a checkpoint with its full TTL is applied, which `raised` reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Final, NamedTuple

import msgspec

from etcray_storage.limits import (
    LEASE_CHECKPOINT_SECONDS_MAX,
    LEASE_CHECKPOINT_SECONDS_MIN,
    LEASE_EXPIRY_RETRY_SECONDS,
)

NOT_LOWERED: Final = 0

SWEEP_ENTRIES_MIN: Final = 256


class LeaseAtStart(NamedTuple):
    """A lease as the state machine has it when a leadership begins."""

    lease: int
    ttl_seconds: int
    remaining_ms: int


class _Held(msgspec.Struct):
    """A lease under this leadership."""

    lease: int
    ttl_seconds: int
    ends_at: float
    """What was promised, without the additional time of a new leader."""
    deadline: float
    """When it may be ended; never before `ends_at`, and never moved back."""
    checkpoint_at: float
    """When what is left is to be recorded next."""
    lowered: int = NOT_LOWERED
    """The number of the last checkpoint that says less than the TTL, until one says more again."""
    is_expiring: bool = False
    """Its end is proposed: nobody can renew it any more."""


_Heap = list[tuple[float, int, _Held]]
"""(time, number, lease). Each living lease is in each heap once. Its time may have moved on since it was
put there: that is noticed when it comes up, so a renewal does not touch the heaps."""


def checkpoint_interval_seconds(ttl_seconds: int) -> float:
    return min(max(ttl_seconds / 8, LEASE_CHECKPOINT_SECONDS_MIN), LEASE_CHECKPOINT_SECONDS_MAX)


def _first_checkpoint_seconds(ttl_seconds: int) -> float:
    """After a grant or a renewal."""
    return min(ttl_seconds / 2, LEASE_CHECKPOINT_SECONDS_MAX)


class Lessor:
    """The deadlines of one leadership. Not thread-safe; `now` never goes back."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._deadlines: _Heap = []
        self._checkpoints: _Heap = []
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._held)

    # --- what the log says --------------------------------------------------------------------
    def promote(self, leases: Iterable[LeaseAtStart], now: float, extend_seconds: float) -> None:
        """Begin a leadership: forget everything, and hold exactly these leases."""
        self.demote()
        for lease, ttl_seconds, remaining_ms in leases:
            assert 0 <= remaining_ms <= ttl_seconds * 1000, f"{remaining_ms} ms left of {ttl_seconds} s"
            ends_at = now + remaining_ms / 1000
            self._held[lease] = _Held(
                lease,
                ttl_seconds,
                ends_at,
                ends_at + extend_seconds,
                now + checkpoint_interval_seconds(ttl_seconds),
                next(self._numbers) if remaining_ms < ttl_seconds * 1000 else NOT_LOWERED,
            )
        self._deadlines = [(held.deadline, next(self._numbers), held) for held in self._held.values()]
        heapify(self._deadlines)
        self._checkpoints = [(held.checkpoint_at, next(self._numbers), held) for held in self._held.values()]
        heapify(self._checkpoints)

    def demote(self) -> None:
        """The leadership is over: nothing that was known here is of use to anybody."""
        self._held = {}
        self._deadlines = []
        self._checkpoints = []

    def granted(self, lease: int, ttl_seconds: int, now: float) -> None:
        """The grant is applied. If the lease is held already, that was an earlier one of the id."""
        ends_at = now + ttl_seconds
        held = _Held(lease, ttl_seconds, ends_at, ends_at, now + _first_checkpoint_seconds(ttl_seconds))
        self._held[lease] = held
        heappush(self._deadlines, (held.deadline, next(self._numbers), held))
        heappush(self._checkpoints, (held.checkpoint_at, next(self._numbers), held))
        self._sweep()

    def revoked(self, lease: int) -> None:
        """The end of the lease is applied; also of one that is not held."""
        self._held.pop(lease, None)
        self._sweep()

    def raised(self, lease: int, number: int) -> None:
        """A checkpoint with the full TTL is applied, which was proposed when `lowered` gave `number`.
        If the lease was lowered again since then, that stands."""
        held = self._held.get(lease)
        if held is not None and held.lowered == number:
            held.lowered = NOT_LOWERED

    # --- what clients ask ---------------------------------------------------------------------
    def renew(self, lease: int, now: float) -> int:
        """Begin the TTL of a lease anew. Its granted TTL in seconds; 0 if there is no such lease, or
        if its time is over, whether or not that is in the log yet."""
        held = self._held.get(lease)
        if held is None or held.is_expiring or now >= held.deadline:
            return 0
        held.ends_at = now + held.ttl_seconds
        held.deadline = max(held.deadline, held.ends_at)
        held.checkpoint_at = max(held.checkpoint_at, now + _first_checkpoint_seconds(held.ttl_seconds))
        return held.ttl_seconds

    def lowered(self, lease: int) -> int:
        """Not 0 if the log says less than the full TTL about a lease, or soon will: the answer to its
        renewal must wait for a checkpoint that says otherwise, and `raised` wants this number."""
        held = self._held.get(lease)
        return NOT_LOWERED if held is None else held.lowered

    def remaining_seconds(self, lease: int, now: float) -> float | None:
        """What a lease has left, never more than its TTL; None if there is no such lease."""
        held = self._held.get(lease)
        if held is None:
            return None
        if held.is_expiring:
            return 0.0
        return min(max(held.deadline - now, 0.0), held.ttl_seconds)

    # --- what is to be proposed ---------------------------------------------------------------
    def expired(
        self,
        now: float,
        leases_max: int,
        key_count: Callable[[int], int] = lambda _: 0,
        keys_max: int = 0,
    ) -> list[int]:
        """Leases whose time is over, longest overdue first: at most `leases_max`, and with at most
        `keys_max` keys together unless it is only one. They cannot be renewed from here on. A lease whose
        end is not applied after `LEASE_EXPIRY_RETRY_SECONDS` is named again."""
        found: list[int] = []
        again: _Heap = []
        keys = 0
        while self._deadlines and self._deadlines[0][0] <= now and len(found) < leases_max:
            _, number, held = self._deadlines[0]
            if self._held.get(held.lease) is not held:
                heappop(self._deadlines)
                continue
            if held.deadline > now:
                heapreplace(self._deadlines, (held.deadline, number, held))
                continue
            keys += key_count(held.lease)
            if found and keys > keys_max:
                break
            heappop(self._deadlines)
            held.is_expiring = True
            found.append(held.lease)
            again.append((now + LEASE_EXPIRY_RETRY_SECONDS, number, held))
        for entry in again:
            heappush(self._deadlines, entry)
        return found

    def checkpoints_due(self, now: float, leases_max: int) -> list[tuple[int, int]]:
        """(lease, milliseconds left) of leases that were not renewed for long, most urgent first. The
        caller proposes them before anything that it learns about these leases later."""
        found: list[tuple[int, int]] = []
        while self._checkpoints and self._checkpoints[0][0] <= now and len(found) < leases_max:
            _, number, held = heappop(self._checkpoints)
            if self._held.get(held.lease) is not held or now >= held.deadline:
                continue
            if held.checkpoint_at <= now:
                # Rounded up: the record must not say less than what was promised.
                found.append((held.lease, max(0, int((held.ends_at - now) * 1000) + 1)))
                held.lowered = next(self._numbers)
                held.checkpoint_at = now + checkpoint_interval_seconds(held.ttl_seconds)
            heappush(self._checkpoints, (held.checkpoint_at, number, held))
        return found

    def _sweep(self) -> None:
        """Drop what leases that are gone have left in the heaps, once that is more than what lives."""
        if len(self._deadlines) + len(self._checkpoints) <= 4 * len(self._held) + SWEEP_ENTRIES_MIN:
            return
        for heap in (self._deadlines, self._checkpoints):
            heap[:] = [entry for entry in heap if self._held.get(entry[2].lease) is entry[2]]
            heapify(heap)
