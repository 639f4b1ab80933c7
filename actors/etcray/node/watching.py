"""The two calls by which gateways watch: the next events, and a piece of the past.

Any member answers them from what it has applied, which is committed and so durable on a majority. A
member that knows of no leader sends the asker elsewhere: it may be cut off, and what it has applied may
be old for as long as that lasts.
"""

from __future__ import annotations

import threading
from typing import Final

from etcray.node.api import (
    HistoryReply,
    Outcome,
    WatchEvents,
    decode_history_request,
    decode_watch_poll,
)
from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.event_ring import NO_EVENTS, columns_of
from etcray.node.history import HistoryOwner, read_history
from etcray_storage.limits import HISTORY_READS_MAX, WATCH_POLL_SECONDS, WATCH_POLLS_MAX
from etcray_storage.types import NOBODY, MemberId

WAIT_SECONDS_MAX: Final = 10 * WATCH_POLL_SECONDS
"""Whatever a gateway asks for: its thread here must not be gone for long."""


class WatchServer:
    """Bounds how many calls wait or read at once; each of them holds a thread of the member."""

    def __init__(self, member: MemberId, owner: HistoryOwner[Applier], driver: Driver) -> None:
        self._member = member
        self._owner = owner
        self._driver = driver
        self._polls = threading.BoundedSemaphore(WATCH_POLLS_MAX)
        self._reads = threading.BoundedSemaphore(HISTORY_READS_MAX)

    def watch(self, encoded_poll: bytes) -> WatchEvents:
        """Wait for events above a position. Raises msgspec.DecodeError for bytes that are no poll."""
        poll = decode_watch_poll(encoded_poll)
        if not self._polls.acquire(blocking=False):
            return self._no_events(Outcome.BUSY)
        try:
            if self._driver.soft_state.leader == NOBODY:
                return self._no_events(Outcome.NOT_LEADER)
            answer = self._owner.applier.events.wait_for(
                poll.after_revision, poll.bytes_max, min(poll.wait_seconds, WAIT_SECONDS_MAX)
            )
        finally:
            self._polls.release()
        state = self._driver.soft_state
        if answer is None or state.leader == NOBODY:
            return self._no_events(Outcome.NOT_LEADER)
        return WatchEvents(
            Outcome.ANSWERED,
            self._member,
            state.term,
            answer.revision,
            answer.compact_revision,
            answer.missed,
            *columns_of(answer.changes, poll.with_previous),
        )

    def _no_events(self, outcome: Outcome) -> WatchEvents:
        return WatchEvents(outcome, self._member, self._driver.soft_state.term, 0, -1, False, *NO_EVENTS)

    def history(self, encoded_request: bytes) -> HistoryReply:
        """Read past events of a key range. Raises msgspec.DecodeError for bytes that are no request."""
        request = decode_history_request(encoded_request)
        if not self._reads.acquire(blocking=False):
            return self._no_history(Outcome.BUSY)
        try:
            found = read_history(self._owner, request)
        finally:
            self._reads.release()
        if found is None:
            return self._no_history(Outcome.NOT_LEADER)
        return HistoryReply(
            Outcome.ANSWERED,
            self._member,
            self._driver.soft_state.term,
            found.compact_revision,
            found.through,
            *found.columns,
        )

    def _no_history(self, outcome: Outcome) -> HistoryReply:
        return HistoryReply(outcome, self._member, self._driver.soft_state.term, -1, 0, *NO_EVENTS)
