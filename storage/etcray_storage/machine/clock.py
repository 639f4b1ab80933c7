"""The replicated clock: when a revision was committed, by the leaders' wall clocks.

Each entry brings its leader's time. Clocks of two leaders differ, and a wall clock can be set back; a
reader of history expects that later revisions are not earlier. So the state machine never lets it go
back: an entry that claims an earlier time gets the latest time seen. That latest time is state like any
other: a member that forgot it in a restart would date the next revision differently than its peers.
"""

from __future__ import annotations

from etcray_storage.mvcc.rows import StateItem

PART = "clock"


class Clock:
    """The latest time of any applied entry."""

    def __init__(self) -> None:
        self.time_ms = 0
        """Milliseconds since 1970; never goes back."""
        self._taken_ms = 0

    def advance(self, time_ms: int) -> None:
        self.time_ms = max(self.time_ms, time_ms)

    def take_items(self) -> list[StateItem]:
        """The time, if it changed since the last call."""
        if self.time_ms == self._taken_ms:
            return []
        self._taken_ms = self.time_ms
        return [StateItem(PART, b"", self.time_ms.to_bytes(8, "big"))]

    def restore(self, item: StateItem) -> None:
        assert item.value is not None, "the clock was removed"
        self.time_ms = self._taken_ms = int.from_bytes(item.value, "big")
