"""The parent's side of the workers: who runs which query, for how long, and what becomes of a worker.

Each of a few slots is a thread with a worker process. A slot takes a query from the queue, sends it what it
does not have yet, and waits for the answer. The caller's own thread is the watchdog: when the time is over,
or the query is cancelled, it asks the worker to stop, and kills it if it does not. A worker that ended, or
that its queries have worn out, is replaced by its slot; the other slots do not notice.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
import pyarrow as pa

from etcray_storage.history.confinement import NO_THREADS
from etcray_storage.history.manifest import PARTS
from etcray_storage.history.messages import (
    BUSY,
    CANCELLED,
    INVALID,
    OUT_OF_MEMORY,
    REFUSED,
    TIMEOUT,
    UNAVAILABLE,
    Answer,
    FrameError,
    Kind,
    Query,
    Run,
    read_frame,
    write_frame,
)
from etcray_storage.history.rows import COMPACTIONS_SCHEMA, ROWS_SCHEMA, SideTables
from etcray_storage.history.store import Snapshot
from etcray_storage.history.tail import above
from etcray_storage.limits import (
    HISTORY_CANCEL_SECONDS,
    HISTORY_QUERIES_WAITING_MAX,
    HISTORY_QUERY_LEFTOVER_MIB,
    HISTORY_QUERY_MEMORY_MIB,
    HISTORY_QUERY_MILLISECONDS_MAX,
    HISTORY_QUERY_WORKERS,
    HISTORY_RESULT_BYTES_MAX,
    HISTORY_RESULT_ROWS_MAX,
    HISTORY_WORKER_START_SECONDS,
    MIB,
)

_RESTART_SECONDS: Final = 1.0
"""Between two attempts to start a worker that does not start."""


_LOOK_SECONDS: Final = 0.5
"""How often a slot looks whether its idle worker is still there."""


class _NotBegunError(Exception):
    """The worker ended before it saw the query, which is for another one then."""


class _Process:
    """One worker process, and what it has been sent."""

    def __init__(self, directory: Path, memory_mib: int) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "etcray_storage.history.worker",
                str(directory / PARTS),
                str(memory_mib),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(sys.path), **NO_THREADS},
            start_new_session=True,
        )
        self._source = cast(BinaryIO, self._process.stdout)
        self._sink = cast(BinaryIO, self._process.stdin)
        self._write_lock = threading.Lock()
        """A cancellation comes from another thread than the query."""
        self._tail_epoch = -1
        self._tail_through = 0
        """The newest revision of the tail that the worker has."""
        self._mapped_bytes = 0
        """Its address space when it was ready."""

    @property
    def process_id(self) -> int:
        return self._process.pid

    def await_ready(self) -> None:
        """Raises EOFError if it does not start, or not in time."""
        killer = threading.Timer(HISTORY_WORKER_START_SECONDS, self.kill)
        killer.start()
        try:
            kind, _, _ = read_frame(self._source)
        finally:
            killer.cancel()
        if kind is not Kind.READY:
            raise FrameError(f"a {kind.name} frame at the start")
        self._mapped_bytes = mapped_bytes(self.process_id)

    def ask(self, query: Query, snapshot: Snapshot, sides: SideTables, memory_mib: int) -> Answer:
        """Send a query and wait for its answer. Raises _NotBegunError, EOFError, FrameError or OSError
        if there is none."""
        known = self._tail_through if snapshot.epoch == self._tail_epoch else 0
        compactions = [pa.array(values, pa.int64()) for values in zip(*snapshot.compactions, strict=True)]
        tables = (
            rows_above(snapshot.tail, known),
            sides.leases,
            sides.members,
            pa.Table.from_arrays(compactions, schema=COMPACTIONS_SCHEMA)
            if compactions
            else COMPACTIONS_SCHEMA.empty_table(),
        )
        bodies = [_encoded(table) for table in tables]
        sizes = [len(body) for body in bodies]
        run = Run(query, snapshot.position, snapshot.parts, snapshot.gaps, snapshot.epoch, sizes, memory_mib)
        try:
            with self._write_lock:
                write_frame(self._sink, Kind.RUN, msgspec.msgpack.encode(run), b"".join(bodies))
            kind, _, _ = read_frame(self._source)
        except (EOFError, OSError) as e:
            raise _NotBegunError(str(e)) from e
        if kind is not Kind.BEGUN:
            raise FrameError(f"a {kind.name} frame before a query began")
        kind, head, body = read_frame(self._source)
        if kind is not Kind.ANSWER:
            raise FrameError(f"a {kind.name} frame instead of an answer")
        answer = msgspec.msgpack.decode(head, type=Answer)
        self._tail_epoch, self._tail_through = snapshot.epoch, snapshot.position
        return msgspec.structs.replace(answer, arrow=body)

    def interrupt(self, query_id: str) -> None:
        """Ask it to stop. Does not wait for a worker that does not read: its killing follows anyway."""
        if self._write_lock.acquire(blocking=False):
            try:
                with suppress(OSError, ValueError):
                    write_frame(self._sink, Kind.CANCEL, query_id.encode())
            finally:
                self._write_lock.release()

    def kill(self) -> None:
        self._process.kill()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def is_worn(self) -> bool:
        """Whether its queries left so little address space that the next ones would miss it."""
        leftover = mapped_bytes(self.process_id) - self._mapped_bytes
        return leftover > HISTORY_QUERY_LEFTOVER_MIB * MIB

    def end(self) -> int:
        """Make sure that it is gone, and say how it went: an exit status, or a signal's number negated."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._source, self._sink):
            with suppress(OSError):
                pipe.close()
        return status


class _Job:
    """A query on its way."""

    def __init__(self, query: Query, snapshot: Snapshot, sides: SideTables) -> None:
        self.query = query
        self.snapshot = snapshot
        self.sides = sides
        self.changed = threading.Condition()
        """Held to read or change the fields below; notified at every change."""
        self.process: _Process | None = None
        """Set while it runs, so whoever holds `changed` cannot kill the worker of another query."""
        self.answer: Answer | None = None
        self.cancelled = False
        self.late = False

    def finish(self, answer: Answer) -> None:
        with self.changed:
            self.process = None
            self.answer = self.answer or answer
            self.changed.notify_all()

    def failed(self, code: str, message: str) -> Answer:
        return Answer(code, message, self.snapshot.position)

    def wait(self, seconds: float) -> None:
        """Wait for the answer, or a cancellation."""
        with self.changed:
            self.changed.wait_for(lambda: self.answer is not None or self.cancelled, seconds)


class QueryPool:
    """The workers. All methods may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        workers: int = HISTORY_QUERY_WORKERS,
        memory_mib: int = HISTORY_QUERY_MEMORY_MIB,
    ) -> None:
        """Start them; queries may come at once, and wait until the first is ready."""
        self._directory = directory
        self._memory_mib = memory_mib
        self._mutex = threading.Lock()
        """Guards the next four."""
        self._jobs: dict[str, _Job] = {}
        """By query id: waiting and running."""
        self._processes: dict[int, _Process] = {}
        """By slot. A slot without one is about to start it."""
        self._ready: set[int] = set()
        """Slots whose worker has started and takes queries, or runs one."""
        self._closed = False
        self._stopped = threading.Event()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        """Bounded by what `run` lets in."""
        self._jobs_max = workers + HISTORY_QUERIES_WAITING_MAX
        self._slots = [
            threading.Thread(target=self._serve, args=(slot,), name=f"query-slot-{slot}", daemon=True)
            for slot in range(workers)
        ]
        for thread in self._slots:
            thread.start()

    def run(self, query: Query, snapshot: Snapshot, sides: SideTables) -> Answer:
        """Run a query and wait for its answer, at most twice its time. The snapshot stays the caller's.

        A query that no worker took in its time is answered `busy`, or `unavailable` while none of them has
        started."""
        job = _Job(query, snapshot, sides)
        problem = self._admit(job)
        if problem is not None:
            return problem
        try:
            self._queue.put(job)
            return self._watch(job)
        finally:
            with self._mutex:
                self._jobs.pop(query.query_id, None)

    def cancel(self, query_id: str) -> bool:
        """Stop a query; its `run` returns soon. False if there is none of this id."""
        with self._mutex:
            job = self._jobs.get(query_id)
        if job is None:
            return False
        with job.changed:
            job.cancelled = True
            job.changed.notify_all()
        return True

    def process_ids(self) -> list[int]:
        """Of the workers that there are now."""
        with self._mutex:
            return [process.process_id for process in self._processes.values()]

    def worker_of(self, query_id: str) -> int | None:
        """The process that this query was given to; None while it waits, and when it has ended."""
        with self._mutex:
            job = self._jobs.get(query_id)
        process = job.process if job is not None else None
        return process.process_id if process is not None else None

    def close(self) -> None:
        """Kill all workers; queries that run end with `unavailable`."""
        with self._mutex:
            self._closed = True
            processes = list(self._processes.values())
        self._stopped.set()
        for _ in self._slots:
            self._queue.put(None)
        for process in processes:
            process.kill()
        for thread in self._slots:
            thread.join()

    def _admit(self, job: _Job) -> Answer | None:
        query = job.query
        limits = (
            ("timeout_ms", query.timeout_ms, HISTORY_QUERY_MILLISECONDS_MAX),
            ("rows_max", query.rows_max, HISTORY_RESULT_ROWS_MAX),
            ("bytes_max", query.bytes_max, HISTORY_RESULT_BYTES_MAX),
        )
        for name, value, most in limits:
            if not 1 <= value <= most:
                return job.failed(INVALID, f"{name} is {value}: it may be from 1 to {most}")
        with self._mutex:
            if self._closed:
                return job.failed(UNAVAILABLE, "the history is shutting down: ask again in a moment")
            if query.query_id in self._jobs:
                return job.failed(
                    INVALID, f"a query with the id {query.query_id} runs already: choose another id"
                )
            if len(self._jobs) >= self._jobs_max:
                return job.failed(
                    BUSY, f"{len(self._jobs)} queries run or wait already: ask again in a moment"
                )
            self._jobs[query.query_id] = job
        return None

    def _watch(self, job: _Job) -> Answer:
        """Wait for the answer; stop the query when its time is over, and kill it when it does not stop.

        Its time begins when a worker takes it, and the worker looks at the clock itself. So a query that was
        taken gets twice its time here, and one that was not is sent away after once.
        """
        seconds = job.query.timeout_ms / 1000
        for _ in range(2):
            job.wait(seconds)
            if job.answer is None:
                self._send_away(job)
        if job.answer is None:
            self._stop(job, HISTORY_CANCEL_SECONDS if job.cancelled else 0)
        assert job.answer is not None, f"query {job.query.query_id} has no answer"
        return job.answer

    def _send_away(self, job: _Job) -> None:
        """Answer a query that nobody works on."""
        with self._mutex:
            ready = len(self._ready)
        with job.changed:
            if job.process is not None or job.answer is not None:
                return
            if job.cancelled:
                job.answer = job.failed(CANCELLED, "the query was cancelled")
            elif ready:
                text = f"other queries kept all workers ({ready}) busy: ask again in a moment"
                job.answer = job.failed(BUSY, text)
            else:
                text = "no worker has started yet: ask again in a moment"
                job.answer = job.failed(UNAVAILABLE, text)

    def _stop(self, job: _Job, seconds: float) -> None:
        """Ask the worker to stop, kill it, and wait for what its slot makes of that."""
        with job.changed:
            job.late = not job.cancelled
            if job.process is not None:
                job.process.interrupt(job.query.query_id)
            job.changed.wait_for(lambda: job.answer is not None, seconds)
            if job.process is not None:
                job.process.kill()
            job.changed.wait_for(lambda: job.answer is not None)

    def _serve(self, slot: int) -> None:
        """One slot's thread: a worker after another, each until it ends."""
        while not self._stopped.is_set():
            process = _Process(self._directory, self._memory_mib)
            with self._mutex:
                self._processes[slot] = process
                closed = self._closed
            try:
                if closed:
                    return
                process.await_ready()
                with self._mutex:
                    self._ready.add(slot)
                self._feed(process)
            except (EOFError, FrameError, OSError):
                self._stopped.wait(_RESTART_SECONDS)
            finally:
                process.end()
                with self._mutex:
                    self._processes.pop(slot, None)
                    self._ready.discard(slot)
        self._drain()

    def _drain(self) -> None:
        """Answer what nobody will work on any more."""
        with suppress(queue.Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    job.finish(job.failed(UNAVAILABLE, "the history is shutting down: ask again in a moment"))

    def _feed(self, process: _Process) -> None:
        """Give a ready worker one query after the other, until it ends, is worn, or the pool ends."""
        while not process.has_ended() and not process.is_worn():
            try:
                job = self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if job is None:
                return
            with job.changed:
                if job.answer is None and (job.late or job.cancelled):
                    job.finish(self._ended(job, 0))
                if job.answer is not None:
                    continue
                job.process = process
            try:
                answer = process.ask(job.query, job.snapshot, job.sides, self._memory_mib)
            except _NotBegunError:
                with job.changed:
                    job.process = None
                    stopped = job.late or job.cancelled or self._stopped.is_set()
                if stopped:
                    job.finish(self._ended(job, process.end()))
                else:
                    self._queue.put(job)
                return
            except (EOFError, FrameError, OSError, msgspec.DecodeError):
                with job.changed:
                    job.process = None
                job.finish(self._ended(job, process.end()))
                return
            if job.cancelled and answer.error_code == TIMEOUT:
                answer = job.failed(CANCELLED, "the query was cancelled")
            job.finish(answer)

    def _ended(self, job: _Job, status: int) -> Answer:
        """The answer of a query whose worker is gone."""
        if job.cancelled:
            return job.failed(CANCELLED, "the query was cancelled")
        if job.late:
            return job.failed(
                TIMEOUT, f"the query was killed after twice its {job.query.timeout_ms} ms: give it less to do"
            )
        if self._stopped.is_set():
            return job.failed(UNAVAILABLE, "the history is shutting down: ask again in a moment")
        if status == -signal.SIGABRT:  # how C++ ends when memory is refused to it and nothing catches that
            return job.failed(OUT_OF_MEMORY, "the query's process ran out of memory: give it less to do")
        if status == -signal.SIGKILL:
            return job.failed(
                UNAVAILABLE,
                "the query's process was killed from outside, by hand or by a system that is short of "
                "memory: ask again",
            )
        return job.failed(
            REFUSED, f"the query ended its process (status {status}): it is not run again, ask in another way"
        )


def mapped_bytes(process_id: int) -> int:
    """A process's address space; that of one that has ended is empty. Raises OSError without a process."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def rows_above(tables: tuple[pa.Table, ...], revision: int) -> pa.Table:
    """The rows of the tables, which are in order, that are newer than a revision."""
    newer: list[pa.Table] = []
    for table in reversed(tables):
        if table["main"][-1].as_py() <= revision:
            break
        newer.append(table if table["main"][0].as_py() > revision else above(table, revision))
    return pa.concat_tables(reversed(newer)) if newer else ROWS_SCHEMA.empty_table()


def _encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
