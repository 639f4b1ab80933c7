"""All revisions, for the copy of them that the history actor keeps.

A copy that is far behind gets pieces from the tables; one that is close gets what is staged for them, from
memory, and waits here for the next revision. Nothing is kept for a copy: its position comes with each
request, it asks for the next piece when it has stored the last one, and so it cannot be overrun. What a
put costs does not change: rows are made for the tables anyway.

A compaction forbids reads of the past at once, but its rows go when the tables are rewritten, much later.
Until then a copy gets them: it does not lose what clients compact behind it. `complete_from` says from
where on nothing has gone yet. It is read after the rows, and moves before rows go, so that a rewrite in
between cannot take rows unnoticed. A copy that was away for too long begins anew with a *base*: what the
compaction left of all revisions up to it.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

import pyarrow as pa

from etcray.node.api import HistoryRowsReply, HistoryRowsRequest, Outcome, decode_history_rows_request
from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.history import ATTEMPTS
from etcray.node.watching import WAIT_SECONDS_MAX
from etcray_storage.limits import HISTORY_FEED_BYTES, HISTORY_FEEDS_MAX
from etcray_storage.mvcc.feed import FeedRows
from etcray_storage.mvcc.rows import Flush
from etcray_storage.mvcc.schema import REVISIONS_ARROW
from etcray_storage.types import NOBODY, MemberId


class FeedTables(Protocol):
    """What the feed needs of the tables; `mvcc.tables.Tables` has it."""

    def stage(self, flush: Flush) -> None: ...

    @property
    def complete_from(self) -> int: ...

    def feed(self, after: int, last: int, bytes_max: int) -> FeedRows | None: ...

    def feed_base(self, after: int, compact_revision: int, bytes_max: int) -> FeedRows | None: ...


class FeedOwner(Protocol):
    """Whose rows they are. As in `history`, both are replaced when a snapshot is installed."""

    @property
    def applier(self) -> Applier: ...

    @property
    def tables(self) -> FeedTables: ...


NOTHING: Final = FeedRows(REVISIONS_ARROW.empty_table(), 0)


class RowFeed:
    """Bounds how many calls are served at once; each of them holds a thread of the member."""

    def __init__(self, member: MemberId, owner: FeedOwner, driver: Driver) -> None:
        self._member = member
        self._owner = owner
        self._driver = driver
        self._calls = threading.BoundedSemaphore(HISTORY_FEEDS_MAX)

    def rows(self, encoded_request: bytes) -> HistoryRowsReply:
        """Wait for rows above a position. Raises msgspec.DecodeError for bytes that are no request.

        A member without a leader sends the asker elsewhere: it may be cut off, and not learn of new
        revisions for as long as that lasts."""
        request = decode_history_rows_request(encoded_request)
        if not self._calls.acquire(blocking=False):
            return self._none(Outcome.BUSY)
        try:
            if self._driver.soft_state.leader == NOBODY:
                return self._none(Outcome.NOT_LEADER)
            wait_seconds = min(request.wait_seconds, WAIT_SECONDS_MAX)
            self._owner.applier.events.wait_beyond(request.after_revision, wait_seconds)
            if self._driver.soft_state.leader == NOBODY:
                return self._none(Outcome.NOT_LEADER)
            return self._read(request)
        finally:
            self._calls.release()

    def _read(self, request: HistoryRowsRequest) -> HistoryRowsReply:
        after, base = request.after_revision, request.base_revision
        bytes_max = min(max(request.bytes_max, 1), HISTORY_FEED_BYTES)
        for _ in range(ATTEMPTS):
            with self._owner.applier.state:
                machine, tables = self._owner.applier.machine, self._owner.tables
                if machine.revision < max(after, base):
                    return self._none(Outcome.NOT_LEADER)
                flush = machine.take_flush()
                if flush is not None:
                    tables.stage(flush)
                revision = machine.revision
            if base:
                found = tables.feed_base(after, base, bytes_max)
            else:
                found = tables.feed(after, revision, bytes_max) if after < revision else NOTHING
            if found is None:
                continue
            rows = _encode(found.rows)
            complete_from = tables.complete_from
            with self._owner.applier.state:
                compact_revision = machine.compact_revision
            state = self._driver.soft_state
            return HistoryRowsReply(
                Outcome.ANSWERED, self._member, state.term, state.leader, revision,
                max(found.through, after), compact_revision, complete_from, rows,
            )  # fmt: skip
        return self._none(Outcome.BUSY)

    def _none(self, outcome: Outcome) -> HistoryRowsReply:
        state = self._driver.soft_state
        return HistoryRowsReply(outcome, self._member, state.term, state.leader, 0, 0, -1, 0, b"")


def _encode(rows: pa.Table) -> bytes:
    if not rows.num_rows:
        return b""
    (batch,) = rows.combine_chunks().to_batches()
    encoded: bytes = batch.serialize().to_pybytes()
    return encoded
