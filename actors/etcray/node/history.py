"""Events of the past, for watchers that start there or fell behind.

The rows come from the tables, without the state lock: a scan may take a hundred milliseconds, and
nothing may be applied meanwhile if it held the lock. What makes that safe, as a story:

1. Under the state lock, everything applied is staged with the tables, so that they hold all revisions
   up to the machine's; and the compact revision is compared with the request.
2. The rows are read. A compaction may be applied meanwhile, and the tables be rewritten without them.
3. Under the state lock again, the compact revision is compared once more. Tables are only ever
   rewritten up to a compact revision that was applied before, so if `from_revision` is still readable
   now, no row that was asked for was gone in step 2. Otherwise the answer is that the past is gone.

Previous pairs go the same way: the key index names the rows, the tables give them, and the comparison
comes last.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol, TypeVar

from etcray.node.api import HistoryRequest
from etcray.node.event_ring import NO_EVENTS, Columns
from etcray_storage import wire
from etcray_storage.errors import COMPACTED, EtcdError
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.events import EventRows
from etcray_storage.mvcc.key_index import record_of
from etcray_storage.mvcc.rows import Flush, Point, RevisionRow

ATTEMPTS = 4
"""How often a read is begun anew because a compaction took a previous pair, or a snapshot the tables."""


class HistoryTables(Protocol):
    """What history needs of the tables; `mvcc.tables.Tables` has it."""

    def stage(self, flush: Flush) -> None: ...

    def events(
        self, key: bytes, range_end: bytes, first: int, last: int, *, revisions_max: int, bytes_max: int
    ) -> EventRows | None: ...

    def rows(self, points: list[Point]) -> list[RevisionRow]: ...


class HistoryState(Protocol):
    """The applied state and its lock; `applier.Applier` has them."""

    machine: StateMachine
    state: threading.Lock


StateT = TypeVar("StateT", bound=HistoryState, covariant=True)


class HistoryOwner(Protocol[StateT]):
    """Whose history it is. `tables` and the applier's machine are replaced together, under the state
    lock, when a snapshot is installed."""

    @property
    def applier(self) -> StateT: ...

    @property
    def tables(self) -> HistoryTables: ...


class History(NamedTuple):
    """A piece of the past, or word that it is gone: then `compact_revision` is above what was asked."""

    compact_revision: int
    through: int
    columns: Columns


def read_history(owner: HistoryOwner[HistoryState], request: HistoryRequest) -> History | None:
    """None if this member has not applied as far as `to_revision`, or is being replaced."""
    for _ in range(ATTEMPTS):
        with owner.applier.state:
            machine, tables = owner.applier.machine, owner.tables
            if machine.revision < request.to_revision:
                return None
            if request.from_revision < machine.compact_revision:
                return History(machine.compact_revision, request.from_revision - 1, NO_EVENTS)
            flush = machine.take_flush()
            if flush is not None:
                tables.stage(flush)
        found = tables.events(
            request.key,
            request.range_end,
            request.from_revision,
            request.to_revision,
            revisions_max=max(1, request.revisions_max),
            bytes_max=request.bytes_max,
        )
        if found is None:
            continue
        previous = _previous_pairs(owner, machine, tables, found.rows) if request.with_previous else []
        if previous is None:
            continue
        with owner.applier.state:
            compact_revision = machine.compact_revision
        if request.from_revision < compact_revision:
            return History(compact_revision, request.from_revision - 1, NO_EVENTS)
        return History(compact_revision, found.through, _columns_of(found.rows, previous))
    return None


def _previous_pairs(
    owner: HistoryOwner[HistoryState], machine: StateMachine, tables: HistoryTables, rows: list[RevisionRow]
) -> list[bytes] | None:
    """The pair before each row, empty where there was none; None if a compaction came in between."""
    with owner.applier.state:
        points = machine.previous_points([Point(row.key, row.main) for row in rows])
    here = {(row.key, row.main): row for row in rows}
    wanted = sorted({point for point in points if point is not None and point not in here})
    try:
        here.update(((row.key, row.main), row) for row in tables.rows(wanted))
    except EtcdError as error:
        if error.number == COMPACTED.number:
            return None
        raise
    return [b"" if point is None else record_of(here[point]).key_value for point in points]


def _columns_of(rows: list[RevisionRow], previous: list[bytes]) -> Columns:
    return Columns(
        [row.main for row in rows],
        [row.key for row in rows],
        [
            wire.delete_event(row.key, row.main)
            if row.tombstone
            else wire.put_event(record_of(row).key_value)
            for row in rows
        ],
        previous,
    )
