"""Applies committed entries in order, and wakes whoever waits for what they did.

Applying is the only work of a member that grows with the number of client requests, so it has a
thread of its own: a follower's ack must not wait for it, and neither must the leader's next Append.

Two kinds of callers wait here. A proposal waits for the answers to its batch. A linearizable read
waits until the index that ReadIndex gave it is applied, then reads under the lock under which entries
are applied, so that it sees whole entries only.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from etcray.node.event_ring import EventRing
from etcray.node.waiters import Waiter
from etcray_storage.commands import Answer, BatchAnswer, ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.rows import Point, RevisionRow, RowsNeededError, ValueReader
from etcray_storage.types import Entry, EntryKind, Index, Membership

BatchId = tuple[int, int]
"""(session, sequence)"""


class LoadedRows:
    """The ValueReader of reads that hold the state lock: it has only what was loaded before, for one
    of them. A transaction may need several loads, one for each of its ranges."""

    def __init__(self, position: int) -> None:
        self.position = position
        """Of the read in its batch."""
        self._rows: dict[Point, RevisionRow] = {}

    def load(self, points: list[Point], tables: ValueReader) -> None:
        """A compaction may overtake this; then the read that is tried again is answered accordingly,
        and these points are not asked for."""
        with suppress(EtcdError):
            self._rows.update(zip(points, tables.rows(points), strict=True))

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        if any(point not in self._rows for point in points):
            raise RowsNeededError(points)
        return [self._rows[point] for point in points]


class Applier:
    """Owns the state machine. `state` is the lock under which everything on it happens."""

    def __init__(
        self,
        machine: StateMachine,
        on_applied: Callable[[Entry, StateMachine], None],
        on_membership: Callable[[Index, Membership], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.machine = machine
        self.settled_index = machine.applied_index
        """Up to here entries are applied, and their changes of members reported: the log may forget them."""
        self._on_applied = on_applied
        """Called after each entry, under `state`, before anybody learns of its answers."""
        self._on_membership = on_membership
        """Called after each entry of kind MEMBERSHIP, without any lock, before anybody learns of its
        answers; see the story in `driver`."""
        self.events = EventRing(machine.revision, machine.compact_revision)
        """What watching gateways wait at; fed under `state`, so that it never lags behind the machine."""
        self._on_failure = on_failure
        self.state = threading.Lock()
        self._wakeup = threading.Condition(threading.Lock())
        self._queue: deque[Sequence[Entry]] = deque()
        """Committed, durable, not yet applied. Bounded by what the core hands out: it stops at
        UNCOMMITTED_BYTES_MAX on the leader, and a follower is sent no more than its window."""
        self._answers: dict[BatchId, list[Waiter[BatchAnswer]]] = {}
        self._applied_waiters: list[tuple[Index, int, Waiter[bool]]] = []
        self._waiter_number = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="applier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def applied_index(self) -> Index:
        return self.machine.applied_index

    def enqueue(self, entries: Sequence[Entry]) -> None:
        """Committed entries, each exactly once and in order. Called under the driver's lock."""
        with self._wakeup:
            self._queue.append(entries)
            self._wakeup.notify()

    def expect(self, batch: BatchId) -> Waiter[BatchAnswer]:
        """Register for the answers to a batch, before it is proposed."""
        waiter: Waiter[BatchAnswer] = Waiter()
        with self._wakeup:
            self._answers.setdefault(batch, []).append(waiter)
        return waiter

    def forget(self, batch: BatchId, waiter: Waiter[BatchAnswer]) -> None:
        """The caller gave up; without this a batch that never comes would stay in the table."""
        with self._wakeup:
            waiting = self._answers.get(batch)
            if waiting is not None and waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del self._answers[batch]

    def give_up_all(self) -> None:
        """Leadership is lost: every waiting proposal must be sent to the new leader."""
        with self._wakeup:
            waiting = [waiter for waiters in self._answers.values() for waiter in waiters]
            self._answers.clear()
        for waiter in waiting:
            waiter.resolve(None)

    def when_applied(self, index: Index, waiter: Waiter[bool]) -> None:
        """Resolve the waiter as soon as `index` is applied, which may be at once."""
        with self._wakeup:
            if self.machine.applied_index < index:
                self._waiter_number += 1
                heapq.heappush(self._applied_waiters, (index, self._waiter_number, waiter))
                return
        waiter.resolve(True)

    def read(self, kinds: bytes, requests: Sequence[bytes], tables: ValueReader) -> list[Answer]:
        """Answer reads in order, each from one state. Those of old revisions are interrupted, their
        rows are loaded without the lock, and they are tried again: applying never waits for SQL."""
        answers: list[Answer] = []
        loaded = LoadedRows(0)
        while len(answers) < len(requests):
            try:
                with self.state:
                    for position in range(len(answers), len(requests)):
                        kind = ReadKind(kinds[position])
                        answers.append(self.machine.read(kind, requests[position], loaded))
            except RowsNeededError as needed:
                if loaded.position != len(answers):
                    loaded = LoadedRows(len(answers))
                loaded.load(needed.points, tables)
        return answers

    def replace(self, machine: StateMachine) -> None:
        """Go on with the state of a snapshot. The caller holds `state`. Nothing that was handed over
        before can be missing in it: the snapshot is newer than everything committed here."""
        assert machine.applied_index > self.machine.applied_index, "a snapshot that is not newer"
        self.machine = machine
        self.settled_index = machine.applied_index
        self.events.reset(machine.revision, machine.compact_revision)
        with self._wakeup:
            self._queue.clear()
            waiting, self._applied_waiters = self._applied_waiters, []
        for _, _, waiter in waiting:
            waiter.resolve(None)

    def close(self) -> None:
        with self._wakeup:
            self._closed = True
            self._wakeup.notify()
        self.events.close()
        if self._thread.is_alive():
            self._thread.join()
        self.give_up_all()

    def apply_queued(self) -> bool:
        """Apply the next piece that was handed over, on the calling thread, which must be the only one
        that does. False if there was none."""
        with self._wakeup:
            if not self._queue:
                return False
            entries = self._queue.popleft()
        for entry in entries:
            self._apply(entry)
        return True

    def _run(self) -> None:
        try:
            while True:
                with self._wakeup:
                    while not self._queue and not self._closed:
                        self._wakeup.wait()
                    if self._closed:
                        return
                self.apply_queued()
        except BaseException as e:
            self._on_failure(e)
            raise

    def _apply(self, entry: Entry) -> None:
        with self.state:
            if entry.index <= self.machine.applied_index:
                return  # a snapshot that was installed in between holds it
            machine = self.machine
            answers = machine.apply(entry)
            self.events.append(machine.changes, machine.revision, machine.compact_revision)
            self._on_applied(entry, machine)
            membership = machine.membership
        resolved: list[tuple[Waiter[BatchAnswer], BatchAnswer]] = []
        applied: list[Waiter[bool]] = []
        with self._wakeup:
            for answer in answers:
                for waiter in self._answers.pop((answer.session, answer.sequence), ()):
                    resolved.append((waiter, answer))
            while self._applied_waiters and self._applied_waiters[0][0] <= entry.index:
                applied.append(heapq.heappop(self._applied_waiters)[2])
        if entry.kind is EntryKind.MEMBERSHIP:
            # The waiters are out of the table by now: a leader that removes itself gives up its
            # leadership in here, and whoever asked for that shall get the answer all the same.
            self._on_membership(entry.index, membership)
        self.settled_index = max(self.settled_index, entry.index)
        for waiter, answer in resolved:
            waiter.resolve(answer)
        for read in applied:
            read.resolve(True)
