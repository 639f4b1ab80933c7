"""Background work of a member: writing the tables, trimming the log, giving space back.

None of it is on the way of a request. The log already holds every applied entry, so the tables may
lag behind by a flush interval, and a crash costs no more than applying those entries again.

Two threads, because they wait for different things. The flusher is short and regular: ten times a second
it looks after the log's tip, the disk's room and the alarms, and twice it writes the tables. The
maintainer runs what can take seconds: rewriting the tables after a compaction, checkpoints, exporting
snapshots; and, when there is nothing of this to do, reads a piece of what is stored, to find damage
before it is needed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from etcray_storage.limits import FLUSH_INTERVAL_SECONDS, LOG_TIP_SYNC_SECONDS, MAINTENANCE_JOBS_MAX

MAINTENANCE_INTERVAL_SECONDS: Final = 2.0


class Flusher:
    """Calls `look` and `flush` regularly, and `flush` once more when it is closed."""

    def __init__(
        self,
        flush: Callable[[], None],
        look: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._flush = flush
        self._look = look
        self._on_failure = on_failure
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
            self._flush()

    def _run(self) -> None:
        try:
            rounds = 0
            while not self._closed.wait(LOG_TIP_SYNC_SECONDS):
                self._look()
                rounds += 1
                if rounds * LOG_TIP_SYNC_SECONDS >= FLUSH_INTERVAL_SECONDS:
                    rounds = 0
                    self._flush()
        except BaseException as e:
            self._on_failure(e)
            raise


class Maintainer:
    """Runs jobs that take long, one after the other, and `routine` when there has been none."""

    def __init__(self, routine: Callable[[], None], on_failure: Callable[[BaseException], None]) -> None:
        self._routine = routine
        self._on_failure = on_failure
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(MAINTENANCE_JOBS_MAX)
        self._thread = threading.Thread(target=self._run, name="maintainer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> bool:
        """False if too many jobs wait; consensus asks again later for what it still wants."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                try:
                    job = self._jobs.get(timeout=MAINTENANCE_INTERVAL_SECONDS)
                except queue.Empty:
                    job = self._routine
                if job is None:
                    return
                job()
        except BaseException as e:
            self._on_failure(e)
            raise
