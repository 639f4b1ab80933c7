"""What is noted while a load runs: as little as possible for each operation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from etcray_bench.load.latency import Counts, bucket

SLOT_SECONDS: Final = 0.1
DELIVERY: Final = "delivery"
"""The name under which events are counted."""
RECENT_MAX: Final = 100_000
"""Latencies that are kept for the progress line."""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What one process noted, as it travels to the one that puts them together."""

    seconds: float
    started_at: float
    started_monotonic: float
    requests: int
    latencies: dict[str, Counts]
    services: dict[str, Counts]
    completions: list[int]
    worst_seconds: list[float]
    failed: list[int]
    failures: dict[str, int]
    unstarted: int
    connections_lost: int
    cpu_seconds: float


class Recorder:
    """Counts what happens from `since` up to `until`; before that, only failures and progress."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.since = math.inf
        self.until = math.inf
        self.requests = 0
        """Answered within the measured time."""
        self.total = 0
        """Operations done since the load began, whether they are measured or not."""
        self.latencies: dict[str, Counts] = {}
        self.services: dict[str, Counts] = {}
        self.completions: list[int] = []
        self.worst: list[float] = []
        self.failed: list[int] = []
        self.failures: Counter[str] = Counter()
        self.unstarted = 0
        self.recent: list[float] = []

    def begin(self, since: float, seconds: float) -> None:
        self.since = since
        slots = math.ceil(seconds / SLOT_SECONDS) + 1
        self.completions, self.worst, self.failed = [0] * slots, [0.0] * slots, [0] * slots

    def completed(self, name: str, intended: float, sent: float, now: float) -> None:
        """In a closed loop, `intended` is `sent`."""
        latency = now - intended
        self.total += 1
        if len(self.recent) < RECENT_MAX:
            self.recent.append(latency)
        since = self.since
        if now < since:
            return
        if now < self.until:
            slot = int((now - since) / SLOT_SECONDS)
            if slot < len(self.completions):
                self.completions[slot] += 1
                if latency > self.worst[slot]:
                    self.worst[slot] = latency
        elif not self.is_open:
            return
        # What came before the measured time may have waited for the sampling at its first moment. An open
        # loop's slow operations are those that end behind it: they belong to when they were meant to begin.
        if since <= intended < self.until:
            _count(self.latencies, name, latency)
            if self.is_open:
                _count(self.services, name, now - sent)

    def delivered(self, starts: Sequence[float], now: float) -> None:
        """Events whose puts were sent then, at one watcher: `completed` for all of them, in a closed loop."""
        self.total += len(starts)
        if not self.since <= now < self.until:
            return
        slot, worst = int((now - self.since) / SLOT_SECONDS), 0.0
        counts = self.latencies.setdefault(DELIVERY, {})
        for start in starts:
            if start >= self.since:
                latency = now - start
                key = bucket(latency)
                counts[key] = counts.get(key, 0) + 1
                if latency > worst:
                    worst = latency
        if slot < len(self.completions):
            self.completions[slot] += len(starts)
            self.worst[slot] = max(self.worst[slot], worst)

    def answered(self, name: str, sent: float, now: float) -> None:
        """A request that is only a part of what is counted as completed."""
        if self.since <= now < self.until:
            self.requests += 1
            if sent >= self.since:
                _count(self.latencies, name, now - sent)

    def failure(self, error: str, now: float) -> None:
        self.failures[error] += 1
        if self.since <= now < self.until:
            slot = int((now - self.since) / SLOT_SECONDS)
            if slot < len(self.failed):
                self.failed[slot] += 1

    def never_began(self, intended: float, now: float) -> None:
        """An open loop's operation that was still waiting for a client at the end: it took longer than it
        has waited, and that is what is counted."""
        if self.since <= intended < self.until:
            self.unstarted += 1
            _count(self.latencies, "never begun", now - intended)

    def take_recent(self) -> list[float]:
        recent, self.recent = self.recent, []
        return recent


def _count(counts_of: dict[str, Counts], name: str, seconds: float) -> None:
    counts = counts_of.get(name)
    if counts is None:
        counts = counts_of[name] = {}
    key = bucket(seconds)
    counts[key] = counts.get(key, 0) + 1
