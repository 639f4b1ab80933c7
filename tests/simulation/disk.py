"""A simulated disk: what one data directory holds, and everything that can happen to a write.

Product code sees it as `DataDirectory`, `Log`, `Tables` and `SnapshotReceiver` (`files`). A write takes
time, and is all or nothing, because that is what the real log and the real tables promise; whether they
keep the promise is tested with crash images, on real files. While it is on its way it is unsynced: a crash
then decides whether it is there afterwards. Several writes on their way are decided one by one, so they may
survive in any order.

A directory is used by one process. A process whose directory was taken away (`take_over`) reads from what
it had, and any write ends it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from etcray_storage.errors import QuarantinedError, StorageFatalError, StorageFullError
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.mvcc.schema import EMPTY, Meta
from etcray_storage.types import Entry, HardState, Index, Term
from tests.simulation.primitives import the
from tests.simulation.scheduler import Killed, Process


class DurableLog:
    """The log as it is after a power loss."""

    def __init__(self) -> None:
        self.exists = False
        self.base_index = Index(0)
        self.base_term = Term(0)
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.damaged_index: Index | None = None
        """A bit of this entry's record is not what was written."""

    @property
    def last_index(self) -> Index:
        return Index(self.base_index + len(self.entries))

    def term(self, index: Index) -> Term:
        if index == self.base_index:
            return self.base_term
        assert self.base_index < index <= self.last_index, f"term of {index}, there is ..{self.last_index}"
        return self.entries[index - self.base_index - 1].term

    def holds(self, index: Index, term: Term) -> bool:
        """Whether this very entry, or a snapshot that includes it, is here."""
        if index <= self.base_index:
            return True
        return index <= self.last_index and self.term(index) == term

    def write(self, hard_state: HardState, entries: tuple[Entry, ...]) -> None:
        self.hard_state = hard_state
        if entries:
            del self.entries[entries[0].index - self.base_index - 1 :]
            self.entries += entries
            if self.damaged_index is not None and entries[0].index <= self.damaged_index:
                self.damaged_index = None

    def rebase(self, index: Index, term: Term) -> None:
        del self.entries[: index - self.base_index]
        self.base_index, self.base_term = index, term
        if self.damaged_index is not None and self.damaged_index <= index:
            self.damaged_index = None

    def reset(self, index: Index, term: Term, hard_state: HardState) -> None:
        self.entries = []
        self.base_index, self.base_term, self.hard_state = index, term, hard_state
        self.damaged_index = None


class DurableTables:
    """The tables as they are after a power loss."""

    def __init__(self) -> None:
        self.meta: Meta = EMPTY
        self.rows: list[RevisionRow] = []
        """In order of (main, sub)."""
        self.items: dict[tuple[str, bytes], bytes] = {}
        """The newest of each, in the order of their writing."""
        self.is_damaged = False


class Disk:
    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = 0
        self.is_complete = False
        self.quarantine_reason = ""
        self.holder: Process | None = None
        """Who has the directory's lock."""
        self.log = DurableLog()
        self.tables = DurableTables()
        self.files: dict[str, bytes] = {}
        """Snapshots on their way out or in."""
        self.is_full = False
        self.reserve_writes = 0
        """What the member's own reserve is good for, until it is given up."""
        self.spare_writes = 0
        """Writes for which a full disk still has room."""
        self.fails_next = 0
        """So many writes from now fails one with an I/O error; 0: none."""
        self.crashes_next = 0
        """So many writes from now the process dies in the middle of one; 0: never."""
        self.write_seconds = 0.001
        self.slow_until = 0.0
        self.installed = 0
        """Snapshots that were taken over."""
        self._unsynced: list[Callable[[], None]] = []
        self.writes = 0
        self.lost_writes = 0
        self.on_crash: Callable[[Process], None] = lambda process: process.exit()

    def check_holder(self) -> None:
        process = the.process
        if process.is_dead:
            raise Killed
        if self.holder is not process:
            raise StorageFatalError(f"{self.name} was taken over by another process")

    def read(self) -> None:
        """Before anything is read."""
        if the.process.is_dead:
            raise Killed

    def write(self, commit: Callable[[], None], *, needs_space: bool = True) -> None:
        """Make something durable: it is when this returns. `commit` changes the durable state."""
        self.check_holder()
        world, process = the.world, the.process
        self.writes += 1
        if self.is_full and needs_space:
            self.spare_writes -= 1
        if self.spare_writes < 0:
            self.spare_writes = 0
            raise StorageFullError(f"{self.name} is full")
        if self.fails_next:
            self.fails_next -= 1
            if not self.fails_next:
                if world.chance(0.5):
                    commit()
                raise StorageFatalError(f"{self.name}: I/O error")
        self._unsynced.append(commit)
        if self.crashes_next:
            self.crashes_next -= 1
            if not self.crashes_next:
                self.on_crash(process)
                raise Killed
        seconds = self.write_seconds * (0.5 + world.rng.random())
        if world.now < self.slow_until:
            seconds += world.rng.random() * 0.8
        world.sleep(seconds)
        self.check_holder()
        self._unsynced.remove(commit)
        commit()
        world.note(b"write")

    def settle(self) -> None:
        """The process is gone: each write on its way is found whole, or not at all."""
        for commit in self._unsynced:
            if the.world.chance(0.5):
                commit()
            else:
                self.lost_writes += 1
        self._unsynced.clear()

    def take_over(self) -> None:
        """Break the lock. The old holder goes on with a copy of what it had."""
        self.settle()
        self.log, self.tables = copy.copy(self.log), copy.copy(self.tables)
        self.log.entries = list(self.log.entries)
        self.tables.rows, self.tables.items = list(self.tables.rows), dict(self.tables.items)
        self.holder = None

    def wipe(self) -> None:
        """A new disk in the place of this one."""
        self.log, self.tables, self.files = DurableLog(), DurableTables(), {}
        self.incarnation, self.is_complete = 0, False
        self._unsynced.clear()

    def check_readable(self) -> None:
        if self.quarantine_reason:
            raise QuarantinedError(f"{self.name} is quarantined: {self.quarantine_reason}")

    @property
    def is_damaged(self) -> bool:
        return self.log.damaged_index is not None or self.tables.is_damaged

    def describe(self) -> dict[str, Any]:
        return {
            "base": self.log.base_index,
            "last": self.log.last_index,
            "hard_state": self.log.hard_state,
            "applied": self.tables.meta.applied_index,
        }


class Disks:
    """All disks, by the name of the directory."""

    def __init__(self) -> None:
        self._disks: dict[str, Disk] = {}

    def __getitem__(self, name: str) -> Disk:
        if name not in self._disks:
            self._disks[name] = Disk(name)
        return self._disks[name]
