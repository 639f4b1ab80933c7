"""The one thread that appends.

While it waits for the disk, records gather; it then makes them durable together, in one commit. So
the log's rate is bounded by the disk's syncs, and the cost of a record falls as the load rises.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from etcray_storage import limits
from etcray_storage.errors import StorageFullError
from etcray_storage.log.log import Log
from etcray_storage.log.record import Record, merge
from etcray_storage.types import HardState, Index, Term


class _Reset(msgspec.Struct, frozen=True):
    index: Index
    term: Term
    hard_state: HardState


class _Job(NamedTuple):
    work: Record | _Reset
    on_durable: Callable[[], None]
    bytes: int


class LogWriter:
    """Makes records durable in the order in which they are submitted, and says so in that order.

    `on_durable` and `on_failure` run on the writer's thread and must not block it. `on_failure` is
    called at most once, with whatever ended the thread (StorageFullError, StorageFatalError); nothing
    is called after it, and whatever is submitted later is dropped: the records that follow a lost one
    must not be stored. A callback that raises ends the thread in the same way."""

    def __init__(
        self,
        log: Log,
        on_failure: Callable[[Exception], None],
        check_owned: Callable[[], None] = lambda: None,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log: Final = log
        self._on_failure: Final = on_failure
        self._check_owned: Final = check_owned
        """Called after each sync, before anybody is told of it: raises if the files that were written
        are not those of the member's directory any more. Measured: 3 us beside a sync of 300 us."""
        self._make_room: Final = make_room
        """Called when the disk is full, and says whether there is more room now: then the record, of
        which nothing was stored, is tried once more."""
        self._queue: Final[queue.SimpleQueue[_Job | None]] = queue.SimpleQueue()
        """None asks the thread to end. A SimpleQueue wakes its reader without a lock of Python's own."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def submit(self, record: Record, on_durable: Callable[[], None]) -> None:
        """Queue a record; returns at once."""
        self._put(_Job(record, on_durable, sum(len(entry.data) for entry in record.entries)))

    def submit_reset(
        self, index: Index, term: Term, hard_state: HardState, on_durable: Callable[[], None]
    ) -> None:
        """Queue a reset after an installed snapshot, in order with the records around it."""
        self._put(_Job(_Reset(index, term, hard_state), on_durable, 0))

    def close(self) -> None:
        """Make durable what was submitted, then end the thread. Idempotent."""
        assert threading.current_thread() is not self._thread, "a callback cannot wait for its own thread"
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> None:
        assert not self._closing, "submitted to a closed writer"
        waiting = self._queue.qsize()
        assert waiting < limits.LOG_QUEUE_RECORDS_MAX or not self._thread.is_alive(), (
            f"{waiting} records wait"
        )
        self._queue.put(job)

    def _run(self) -> None:
        try:
            job = self._queue.get()
            while job is not None:
                jobs, job = self._gather(job)
                self._store(jobs)
                self._check_owned()
                for each in jobs:
                    each.on_durable()
                if job is _NOTHING:
                    job = self._queue.get()
        except Exception as e:
            self._on_failure(e)

    def _store(self, jobs: list[_Job]) -> None:
        try:
            self._store_once(jobs)
        except StorageFullError:
            if not self._make_room():
                raise
            self._store_once(jobs)

    def _store_once(self, jobs: list[_Job]) -> None:
        work = jobs[0].work
        if isinstance(work, _Reset):
            self._log.reset(work.index, work.term, work.hard_state)
        else:
            self._log.append(merge([each.work for each in jobs if isinstance(each.work, Record)]))

    def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None]:
        """Jobs for one commit, and the job that did not go with them: `_NOTHING` if the queue is
        empty, None at the end. A reset goes alone."""
        jobs = [first]
        size = first.bytes
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, _NOTHING
            if job is None or isinstance(job.work, _Reset) or isinstance(first.work, _Reset):
                return jobs, job
            size += job.bytes
            if size > limits.LOG_RECORD_BYTES_MAX:
                return jobs, job
            jobs.append(job)


_NOTHING: Final = _Job(Record(HardState(), ()), lambda: None, 0)
