"""The newest events in memory, where gateways wait for the next ones.

What a ring holds is one stretch of history without a hole: every event above `floor`, up to and
including `revision`. The applier appends what an entry changed, under the lock under which it applied
it; so an event is here only once its entry is committed, durable on a majority and applied. Old events
fall off in pieces of a log entry. A gateway whose position is below the floor is told that it missed
something, and reads the tables instead.

Compaction takes nothing away here. Events that a gateway has not seen yet are still true, and a live
watcher must not lose them to a compaction that somebody else asked for.

Memory: the pairs are the objects that the key index holds, so an event whose pair is still the newest of
its key costs a tuple. The byte bound counts everything in full, as if no pair were shared.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from etcray_storage import wire
from etcray_storage.limits import EVENT_RING_BYTES, EVENT_RING_REVISIONS
from etcray_storage.mvcc.rows import Change

CHANGE_BYTES: Final = 150
"""What a change takes beside its pairs, about."""


class _Piece(NamedTuple):
    """What one log entry changed: whole revisions."""

    first: int
    last: int
    bytes: int
    changes: Sequence[Change]


class Columns(NamedTuple):
    """Events as `api.WatchEvents` and `api.HistoryReply` carry them."""

    revisions: list[int]
    keys: list[bytes]
    events: list[bytes]
    previous: list[bytes]


NO_EVENTS: Final = Columns([], [], [], [])


class RingAnswer(NamedTuple):
    """What a poll gets."""

    revision: int
    """The asker's new position."""
    compact_revision: int
    missed: bool
    changes: list[Change]


def size_of(change: Change) -> int:
    _, key, pair, previous = change
    return len(key) + len(pair) + len(previous) + CHANGE_BYTES


def columns_of(changes: Sequence[Change], with_previous: bool) -> Columns:
    """Encode for the way to a gateway."""
    return Columns(
        [change[0] for change in changes],
        [change[1] for change in changes],
        [wire.put_event(pair) if pair else wire.delete_event(key, main) for main, key, pair, _ in changes],
        [change[3] for change in changes] if with_previous else [],
    )


class EventRing:
    """One member's newest events. Thread-safe; its lock is the innermost and is held for moments."""

    def __init__(
        self,
        revision: int,
        compact_revision: int,
        bytes_max: int = EVENT_RING_BYTES,
        revisions_max: int = EVENT_RING_REVISIONS,
    ) -> None:
        self._bytes_max = bytes_max
        self._revisions_max = revisions_max
        self._news = threading.Condition(threading.Lock())
        self._pieces: deque[_Piece] = deque()
        """In order; the first begins right above `_floor`, the last ends at `_revision`."""
        self._bytes = 0
        self._floor = revision
        self._revision = revision
        self._compact_revision = compact_revision
        self._closed = False

    def append(self, changes: Sequence[Change], revision: int, compact_revision: int) -> None:
        """What one log entry changed, and where the store is after it."""
        with self._news:
            self._compact_revision = compact_revision
            if not changes:
                return
            first = changes[0][0]
            assert first == self._revision + 1, f"revision {first} behind {self._revision}"
            assert changes[-1][0] == revision, f"changes up to {changes[-1][0]}, store at {revision}"
            size = sum(map(size_of, changes))
            self._pieces.append(_Piece(first, revision, size, changes))
            self._revision = revision
            self._bytes += size
            while self._bytes > self._bytes_max or revision - self._floor > self._revisions_max:
                dropped = self._pieces.popleft()
                self._bytes -= dropped.bytes
                self._floor = dropped.last
            self._news.notify_all()

    def reset(self, revision: int, compact_revision: int) -> None:
        """Go on from an installed snapshot: what it skipped is not here."""
        with self._news:
            self._pieces.clear()
            self._bytes = 0
            self._floor = self._revision = revision
            self._compact_revision = compact_revision
            self._news.notify_all()

    def close(self) -> None:
        """Send all waiting polls home."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def wait_for(self, after: int, bytes_max: int, wait_seconds: float) -> RingAnswer | None:
        """The events above `after`, whole revisions up to about `bytes_max`; at once if there are some
        or if some are missed, else as soon as the first is there.

        An empty answer after `wait_seconds`. None if this member cannot serve the position: it is
        closing, or has not applied as far as the asker has seen.
        """
        with self._news:
            self._wait_beyond(after, wait_seconds)
            if self._closed or self._revision < after:
                return None
            if after < self._floor:
                return RingAnswer(self._revision, self._compact_revision, True, [])
            pieces = list(takewhile(lambda piece: piece.last > after, reversed(self._pieces)))
            compact_revision = self._compact_revision
        pieces.reverse()
        changes, through = _cut(pieces, after, bytes_max)
        return RingAnswer(through, compact_revision, False, changes)

    def wait_beyond(self, after: int, wait_seconds: float) -> None:
        """Return as soon as there is something above `after`, after `wait_seconds`, or at the end."""
        with self._news:
            self._wait_beyond(after, wait_seconds)

    def _wait_beyond(self, after: int, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while self._revision <= after and not self._closed:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._news.wait(remaining):
                return


def _cut(pieces: Sequence[_Piece], after: int, bytes_max: int) -> tuple[list[Change], int]:
    """Whole revisions above `after`; at least one, then until the limit is passed."""
    taken: list[Change] = []
    size, main = 0, after
    for piece in pieces:
        if size + piece.bytes <= bytes_max and piece.first > after:
            taken += piece.changes
            size += piece.bytes
            main = piece.last
            continue
        for change in piece.changes:
            if change.main <= after:
                continue
            if change.main != main:
                if size >= bytes_max:
                    return taken, main
                main = change.main
            taken.append(change)
            size += size_of(change)
    return taken, main
