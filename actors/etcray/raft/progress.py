"""What a leader knows about one peer's log, and how fast it may send to it.

PROBE      It is not known where the peer's log ends: one message at a time, at most one a heartbeat
           interval unless the peer answers.
REPLICATE  It is known: appends are sent without waiting, up to a window of messages and bytes.
SNAPSHOT   The entries that the peer needs are compacted: nothing but heartbeats until a snapshot has
           arrived, failed, or taken too long.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from etcray_storage.types import Index


class ProgressState(StrEnum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    __slots__ = (
        "_in_flight",
        "_in_flight_bytes",
        "heard_at",
        "heartbeat_due",
        "known_commit",
        "match_index",
        "next_index",
        "probe_sent",
        "read_sequence_echoed",
        "read_sequence_sent",
        "sent_at",
        "snapshot_deadline",
        "state",
    )

    def __init__(self, last_index: Index, now: float) -> None:
        self.state = ProgressState.PROBE
        self.match_index = Index(0)
        """Durable at the peer and equal to this leader's log up to here. Never falls, and never
        comes from anything but the peer's own acknowledgement."""
        self.next_index = Index(last_index + 1)
        """The next entry to send; > match_index."""
        self.known_commit = Index(0)
        """The peer knows that everything up to here is committed."""
        self.sent_at = now
        self.heard_at = now
        """A new leader gives every peer one election timeout to answer."""
        self.heartbeat_due = False
        self.probe_sent = False
        self.snapshot_deadline = 0.0
        self.read_sequence_sent = 0
        self.read_sequence_echoed = 0
        self._in_flight: deque[tuple[Index, int]] = deque()
        self._in_flight_bytes = 0

    def is_paused(self, messages_max: int, bytes_max: int) -> bool:
        """Whether no entries may be sent now."""
        if self.state is ProgressState.REPLICATE:
            return len(self._in_flight) >= messages_max or self._in_flight_bytes >= bytes_max
        return self.state is ProgressState.SNAPSHOT or self.probe_sent

    def needs_snapshot(self, base_index: Index) -> bool:
        """Whether what comes next for the peer is compacted. That a full window waits for answers
        is no reason to wait: what was sent may be lost, and no answer can make up for the rest."""
        if self.next_index > base_index:
            return False
        return self.state is ProgressState.REPLICATE or (
            self.state is ProgressState.PROBE and not self.probe_sent
        )

    def sent(self, last_index: Index, size: int) -> None:
        """An append with entries up to `last_index` has left."""
        assert self.next_index <= last_index, f"sent {last_index}, next was {self.next_index}"
        if self.state is ProgressState.REPLICATE:
            self.next_index = Index(last_index + 1)
            self._in_flight.append((last_index, size))
            self._in_flight_bytes += size
        else:
            assert self.state is ProgressState.PROBE, f"entries sent in state {self.state}"
            self.probe_sent = True

    def acknowledge(self, match: Index) -> bool:
        """The peer has everything up to `match`. Returns whether that is news."""
        is_news = match > self.match_index
        if is_news:
            self.match_index = match
            if self.next_index <= match:
                self.next_index = Index(match + 1)
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= match:
            self._in_flight_bytes -= in_flight.popleft()[1]
        return is_news

    def is_rejection_current(self, rejected: Index) -> bool:
        """Whether a rejection tells something: a probe is answered by a rejection of just the
        index that is probed; anything else is late or a duplicate."""
        if self.state is ProgressState.REPLICATE:
            return rejected > self.match_index
        return self.state is ProgressState.PROBE and rejected == self.next_index - 1

    def become_probe(self, next_index: Index) -> None:
        assert next_index > self.match_index, f"next {next_index} <= match {self.match_index}"
        self._become(ProgressState.PROBE)
        self.next_index = next_index

    def become_replicate(self) -> None:
        self._become(ProgressState.REPLICATE)
        self.next_index = Index(self.match_index + 1)

    def become_snapshot(self, deadline: float) -> None:
        self._become(ProgressState.SNAPSHOT)
        self.snapshot_deadline = deadline

    def _become(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self._in_flight.clear()
        self._in_flight_bytes = 0
