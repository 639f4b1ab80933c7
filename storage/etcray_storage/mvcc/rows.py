"""The rows that pass between the state machine (memory) and the tables (disk).

The state machine never writes: it hands out a `Flush` now and then, and the tables store it in one
transaction together with the applied index that it covers.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from etcray_storage.types import Index, Membership, Term


class RevisionRow(NamedTuple):
    """One revision of one key: a row of the `revisions` table, never changed once written.

    A key changes at most once in a main revision (etcd refuses transactions that would change it
    twice), so (key, main) names a row. `sub` orders the changes within one main revision.
    """

    main: int
    sub: int
    key: bytes
    value: bytes
    """Empty for a tombstone."""
    create_revision: int
    """0 for a tombstone, like version and lease."""
    version: int
    lease: int
    tombstone: bool
    time_ms: int
    """The leader's clock when the change was proposed; never goes back."""
    author: str
    """Who made it; empty while authentication is off."""


class Change(NamedTuple):
    """One changed key, as a watcher sees it. Both pairs are the very objects that the key index holds or
    held, so remembering a change copies no value."""

    main: int
    key: bytes
    pair: bytes
    """The serialized `mvccpb.KeyValue` afterwards; empty for a deletion."""
    previous: bytes
    """The same before; empty for a creation."""


class StateItem(NamedTuple):
    """One item of the small state: a session, an alarm, a member. The newest row of a (part, key) wins."""

    part: str
    key: bytes
    value: bytes | None
    """None: the item is gone."""


class Flush(NamedTuple):
    """Everything that changed since the last flush, up to and including `applied_index`."""

    applied_index: Index
    applied_term: Term
    revision: int
    """The store's current main revision."""
    compact_revision: int
    """-1: never compacted."""
    rows: list[RevisionRow]
    """In order of (main, sub)."""
    items: list[StateItem]
    membership: Membership
    """As of `applied_index`."""


class Point(NamedTuple):
    """Names one row of the `revisions` table."""

    key: bytes
    main: int


class RowsNeededError(Exception):
    """Raised by a ValueReader that must not touch the disk: these rows have to be loaded first."""

    def __init__(self, points: list[Point]) -> None:
        super().__init__(f"{len(points)} rows are needed")
        self.points = points


class ValueReader(Protocol):
    """Reads old revisions, which are not kept in memory. Implemented by the tables on disk, and by
    a dict in tests. Synchronous: called from reads and, for a transaction that reads an old
    revision, from apply."""

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        """The rows at these points, in the same order. Each must exist: the key index knows which
        ones do. Rows that are handed to the tables but not yet flushed are found as well."""
        ...
