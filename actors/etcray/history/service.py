"""The history of one cluster, without Ray: the store, the thread that follows, and the pool of workers.

A query passes through here in its own thread:

1. The leader is asked how far the cluster is (unless the query may be stale), and for leases or members if
   the query names them.
2. It waits until the store has that revision: then it sees everything that was committed when it came.
3. A worker runs it on a snapshot of the store. What it may read and do is the worker's business.

It can be cancelled, and its time can run out, in each of the three.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from etcray.history.api import HistoryStatus, QueryReply, QueryRequest
from etcray.history.channels import Channels, MemberChannel
from etcray.history.cluster_reads import ClusterReads, NoAnswerError, Present
from etcray.history.following import Following
from etcray.spec import ClusterSpec
from etcray_storage.errors import DataDirectoryError
from etcray_storage.history.messages import BUSY, CANCELLED, TIMEOUT, UNAVAILABLE, Answer, Query
from etcray_storage.history.pool import QueryPool
from etcray_storage.history.retention import Retention
from etcray_storage.history.store import HistoryStore
from etcray_storage.limits import (
    HISTORY_FRESH_SECONDS,
    HISTORY_QUERIES_WAITING_MAX,
    HISTORY_QUERY_MILLISECONDS,
    HISTORY_QUERY_MILLISECONDS_MAX,
    HISTORY_QUERY_WORKERS,
    HISTORY_RESULT_ROWS,
    HISTORY_RESULT_ROWS_MAX,
)
from etcray_storage.types import NOBODY, MemberId

QUERIES_MAX: Final = HISTORY_QUERY_WORKERS + HISTORY_QUERIES_WAITING_MAX
EXIT_FATAL: Final = 70


class HistoryService:
    """Opened once. Its calls come from any thread; each query holds one."""

    def __init__(self, cluster: ClusterSpec) -> None:
        assert cluster.history is not None, f"cluster {cluster.name} has no history"
        self._cluster = cluster
        self._spec = cluster.history
        self._channels = Channels()
        self._reads = ClusterReads(self._channels)
        self._opening = threading.Lock()
        self._opened: _Opened | None = None
        self._queries: dict[str, threading.Event] = {}
        """Set: the query is cancelled."""
        self._cancelled_early: deque[str] = deque(maxlen=QUERIES_MAX)
        """Ray keeps no order between calls: a cancellation may come before its query."""
        self._queries_lock = threading.Lock()
        self._query_count = 0

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store and begin to follow. Idempotent. Raises OperatingError; DataDirectoryInUseError
        among them means that the process before this one is not quite gone."""
        with self._opening:
            if self._opened is None:
                self._opened = _Opened(self._cluster, self._channels, self._fail)
                self._opened.following.set_members(self._channels.members)

    def set_channels(self, channels: Mapping[MemberId, MemberChannel]) -> None:
        """The members; called again whenever one of them was created anew."""
        self._channels.set(channels)
        if self._opened is not None:
            self._opened.following.set_members(list(channels))

    def member_died(self, member: MemberId) -> None:
        if self._opened is not None:
            self._opened.following.member_died(member)

    def close(self) -> None:
        """Cancel what runs and close the store. Idempotent."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            with self._queries_lock:
                running = list(self._queries)
            for query_id in running:
                self.cancel(query_id, opened)
            opened.close()

    def _fail(self, error: BaseException) -> None:
        """What is in memory and what is on disk may disagree: end, and let the next process look. Nobody
        but those who ask at this moment will notice."""
        text = "".join(traceback.format_exception(error))
        try:
            (Path(self._spec.directory) / "last-failure.txt").write_text(text)
            sys.stderr.write(text)
            sys.stderr.flush()
        finally:
            os._exit(EXIT_FATAL)

    # --- queries ----------------------------------------------------------------------------------

    def query(self, request: QueryRequest) -> QueryReply:
        """Run a query; errors are replies, too."""
        started = time.monotonic()
        opened = self._opened
        if opened is None:
            return _error(UNAVAILABLE, "history is being opened: ask again in a moment")
        cancelled = threading.Event()
        with self._queries_lock:
            if request.query_id in self._cancelled_early:
                return _error(CANCELLED, _CANCELLED.error_message)
            if request.query_id in self._queries:
                return _error(BUSY, f"a query {request.query_id} is running: choose another id")
            if len(self._queries) >= QUERIES_MAX:
                return _error(BUSY, f"{QUERIES_MAX} queries are running or waiting: ask again later")
            self._queries[request.query_id] = cancelled
            self._query_count += 1
        try:
            answer = self._run(opened, request, started, cancelled)
        finally:
            with self._queries_lock:
                del self._queries[request.query_id]
        return QueryReply(
            error_code=answer.error_code,
            error_message=answer.error_message,
            revision=answer.revision,
            stale=request.stale,
            rows=answer.rows,
            elapsed_ms=(time.monotonic() - started) * 1000,
            arrow=answer.arrow,
        )

    def _run(
        self, opened: _Opened, request: QueryRequest, started: float, cancelled: threading.Event
    ) -> Answer:
        timeout_ms = request.timeout_ms or HISTORY_QUERY_MILLISECONDS
        deadline = started + min(timeout_ms, HISTORY_QUERY_MILLISECONDS_MAX) / 1000
        ready_by = min(deadline, started + HISTORY_FRESH_SECONDS)
        try:
            present = self._reads.present(
                request.sql, stale=request.stale, deadline=ready_by, is_cancelled=cancelled.is_set
            )
        except NoAnswerError as error:
            if cancelled.is_set():
                return _CANCELLED
            return Answer(UNAVAILABLE, f"{error}. A stale query is answered without it", 0)
        if not opened.following.wait_for(present.revision, ready_by, cancelled.is_set):
            return _CANCELLED if cancelled.is_set() else _behind(opened.following, present)
        remaining_ms = int((deadline - time.monotonic()) * 1000)
        if remaining_ms <= 0:
            return Answer(TIMEOUT, f"{timeout_ms} ms were over before the query could run", 0)
        query = Query(
            query_id=request.query_id,
            sql=request.sql,
            parameters=request.parameters,
            timeout_ms=remaining_ms,
            rows_max=min(request.rows_max or HISTORY_RESULT_ROWS, HISTORY_RESULT_ROWS_MAX),
        )
        snapshot = opened.store.snapshot()
        try:
            if cancelled.is_set():
                return _CANCELLED
            return opened.pool.run(query, snapshot, present.sides)
        finally:
            snapshot.release()

    def cancel(self, query_id: str, opened: _Opened | None = None) -> bool:
        """Stop a query; False if there is none of that id: it has ended, or will not begin."""
        opened = opened or self._opened
        with self._queries_lock:
            cancelled = self._queries.get(query_id)
            if cancelled is None:
                self._cancelled_early.append(query_id)
        if cancelled is None or opened is None:
            return False
        cancelled.set()
        opened.following.wake()
        opened.pool.cancel(query_id)
        return True

    # --- status -----------------------------------------------------------------------------------

    def status(self) -> HistoryStatus:
        opened = self._opened
        with self._queries_lock:
            running, count = len(self._queries), self._query_count
        if opened is None:
            return HistoryStatus(
                process_id=os.getpid(), revision=0, first_revision=0, lag_revisions=0, is_following=False,
                source=NOBODY, rows=0, parts=0, size_bytes=0, queries=running, query_count=count,
                problem="it is not open", damage=[],
            )  # fmt: skip
        store, following = opened.store.status(), opened.following
        return HistoryStatus(
            process_id=os.getpid(),
            revision=store.position,
            first_revision=store.first_revision,
            lag_revisions=following.lag_revisions,
            is_following=following.source != NOBODY and not following.problem,
            source=following.source,
            rows=store.rows,
            parts=store.parts,
            size_bytes=size_of(Path(self._spec.directory)),
            queries=running,
            query_count=count,
            problem=following.problem,
            damage=store.damage,
        )


class _Opened:
    """What exists between `open` and `close`."""

    def __init__(
        self, cluster: ClusterSpec, channels: Channels, on_failure: Callable[[BaseException], None]
    ) -> None:
        spec = cluster.history
        assert spec is not None, f"cluster {cluster.name} has no history"
        directory = Path(spec.directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirectoryError(f"cannot create {directory}: {error.strerror}") from error
        retention = Retention(spec.retention_seconds, spec.retention_revisions, spec.retention_bytes)
        self.store = HistoryStore.open(directory, f"{cluster.cluster_id:x}", retention, wall_ms)
        try:
            self.pool = QueryPool(directory)
        except BaseException:
            self.store.close()
            raise
        self.following = Following(self.store, channels, on_failure)
        self.following.start()

    def close(self) -> None:
        self.following.close()
        self.pool.close()
        self.store.close()


_CANCELLED: Final = Answer(CANCELLED, "the query was cancelled", 0)


def _error(code: str, message: str) -> QueryReply:
    return QueryReply(error_code=code, error_message=message)


def _behind(following: Following, present: Present) -> Answer:
    position = following.position
    reason = following.problem or f"it is {present.revision - position} revisions behind and catches up"
    return Answer(
        UNAVAILABLE,
        f"history holds revision {position}, the query has to see {present.revision}: {reason}. Ask again "
        "later, or for a stale answer",
        0,
    )


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def size_of(directory: Path) -> int:
    """Bytes of all files in it; of those that are there when it looks."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total
