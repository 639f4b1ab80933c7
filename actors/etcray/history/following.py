"""The thread that follows: it asks members by `Follower`'s decisions and stores what they send.

It is the only one that appends to the store. It asks for the next rows only when the last are stored, so
the store's disk is what slows it down, never its memory. Its position moves once rows are durable, and
queries wait here until it has reached theirs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from etcray.history.channels import Channels, MemberUnreachableError
from etcray.history.follower import Follower, Step
from etcray.node.api import HistoryRowsReply, Outcome, decode_history_rows_reply, encode
from etcray_storage.history.base import BaseBuilder
from etcray_storage.history.rows import Compaction, HistoryBatch
from etcray_storage.history.store import HistoryStore
from etcray_storage.limits import WATCH_POLL_SECONDS
from etcray_storage.mvcc.schema import REVISIONS_ARROW
from etcray_storage.types import NOBODY, MemberId

CALL_TIMEOUT_SECONDS: Final = WATCH_POLL_SECONDS + 2.0
BASE_TIMEOUT_SECONDS: Final = 30.0
"""Each piece of a base is found among all rows."""


class Following:
    """Owns the appending side of the store from `start` to `close`."""

    def __init__(
        self,
        store: HistoryStore,
        channels: Channels,
        on_failure: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._channels = channels
        self._on_failure = on_failure
        self._clock = clock
        self._wall_ms = wall_ms
        self._follower = Follower(store.position)
        self._base: BaseBuilder | None = None
        """What is stored of the base that the follower fetches."""
        self._compacted = -1
        """The newest compaction that the store was told of. It passes over what it knows."""
        self._moved = threading.Condition(threading.Lock())
        """Guards the follower, and what follows; told of every move."""
        self._wanted = 0
        """Some query waits for this revision."""
        self._closed = False
        self.problem = ""
        self.source = NOBODY
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Returns once nothing appends any more. Queries that wait are sent home."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    # --- for other threads ------------------------------------------------------------------------

    def set_members(self, members: list[MemberId]) -> None:
        with self._moved:
            self._follower.set_members(members)
            self._moved.notify_all()

    def member_died(self, member: MemberId) -> None:
        with self._moved:
            self._follower.member_died(member)

    @property
    def position(self) -> int:
        with self._moved:
            return self._follower.position

    @property
    def lag_revisions(self) -> int:
        with self._moved:
            return self._follower.lag_revisions

    def wait_for(self, revision: int, deadline: float, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until the store holds a revision; False if it does not by then, or if it closes. Whoever
        cancels calls `wake`."""
        with self._moved:
            while self._follower.position < revision:
                remaining = deadline - self._clock()
                if remaining <= 0 or self._closed or is_cancelled():
                    return False
                if revision > self._wanted:
                    self._wanted = revision
                    self._moved.notify_all()
                self._moved.wait(remaining)
            return True

    def wake(self) -> None:
        """Have waiting queries look whether they are cancelled."""
        with self._moved:
            self._moved.notify_all()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
        except BaseException as error:
            self._on_failure(error)
            raise
        finally:
            self._drop_base()

    def _turn(self) -> None:
        started = self._clock()
        with self._moved:
            member = self._follower.choose(started)
            request = self._follower.request()
        if member == NOBODY:
            self._pause(WATCH_POLL_SECONDS, "no member is known yet")
            return
        timeout = BASE_TIMEOUT_SECONDS if request.base_revision else CALL_TIMEOUT_SECONDS
        try:
            data = self._channels.get(member).history_rows(encode(request), timeout)
        except MemberUnreachableError as error:
            self._failed(member, NOBODY, f"member {member:x} does not answer: {error}")
            return
        reply = decode_history_rows_reply(data)
        if reply.outcome is not Outcome.ANSWERED:
            self._failed(member, reply.leader, f"member {member:x} cannot serve: {reply.outcome.name}")
            return
        self._take(member, reply)
        self.problem = ""
        with self._moved:
            pause = self._follower.pause(started, self._clock())
        if pause > 0:
            self._pause(pause, "")

    def _take(self, member: MemberId, reply: HistoryRowsReply) -> None:
        with self._moved:
            step = self._follower.answered(member, reply)
        self.source = member
        if step is Step.APPEND:
            self._append(reply)
        elif step is Step.BEGIN_BASE:
            self._base = self._store.begin_base(reply.compact_revision)
        elif step is Step.ABANDON_BASE:
            self._drop_base()
        else:
            assert self._base is not None, "rows of a base that was not begun"
            rows = _table(reply.rows)
            if rows.num_rows:
                self._base.add(rows)
            if step is Step.FINISH_BASE:
                self._base.finish()
                self._base = None
                self._advance()

    def _append(self, reply: HistoryRowsReply) -> None:
        compactions = []
        if reply.compact_revision > self._compacted:
            compactions.append(Compaction(reply.compact_revision, self._wall_ms()))
        after = self._store.position
        if reply.through_revision > after or compactions:
            self._store.append(HistoryBatch(after, reply.through_revision, _table(reply.rows), compactions))
            self._compacted = max(self._compacted, reply.compact_revision)
            self._advance()

    def _advance(self) -> None:
        with self._moved:
            self._follower.position = self._store.position
            self._moved.notify_all()

    def _drop_base(self) -> None:
        base, self._base = self._base, None
        if base is not None:
            base.abort()
        with self._moved:
            self._follower.forget_base()

    def _failed(self, member: MemberId, leader: MemberId, problem: str) -> None:
        with self._moved:
            pause = self._follower.failed(member, leader, self._clock())
        self._pause(pause, problem)

    def _pause(self, seconds: float, problem: str) -> None:
        """Shorter if somebody waits for rows that may be there already."""
        if problem:
            self.problem = problem
        deadline = self._clock() + seconds
        with self._moved:
            while not self._closed:
                remaining = deadline - self._clock()
                if remaining <= 0 or (not problem and self._wanted > self._follower.position):
                    return
                self._moved.wait(remaining)


def _table(rows: bytes) -> pa.Table:
    if not rows:
        return REVISIONS_ARROW.empty_table()
    return pa.Table.from_batches([pa.ipc.read_record_batch(rows, REVISIONS_ARROW)])
