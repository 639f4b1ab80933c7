"""A naive model of the MVCC tables: a list of rows and a few dicts, and flushes made at random."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from pathlib import Path

from etcray_storage.mvcc.rows import Flush, Point, RevisionRow, StateItem
from etcray_storage.mvcc.tables import Tables
from etcray_storage.types import Index, MemberId, Membership, Term

MEMBERSHIP = Membership((MemberId(1), MemberId(2), MemberId(3)), (MemberId(4),))


def put(main: int, key: bytes, value: bytes = b"value", sub: int = 0, version: int = 1) -> RevisionRow:
    return RevisionRow(main, sub, key, value, main, version, 0, False, 1_700_000_000_000 + main, "root")


def delete(main: int, key: bytes, sub: int = 0) -> RevisionRow:
    return RevisionRow(main, sub, key, b"", 0, 0, 0, True, 1_700_000_000_000 + main, "")


def flush(
    index: int, rows: Iterable[RevisionRow] = (), compact_revision: int = -1, **changes: object
) -> Flush:
    """A flush whose revision is that of its last row; without rows, name the revision."""
    ordered = list(rows)
    revision = ordered[-1].main if ordered else 1
    made = Flush(Index(index), Term(1), revision, compact_revision, ordered, [], MEMBERSHIP)
    return made._replace(**changes)  # type: ignore[arg-type]


def puts(index: int, first_main: int, count: int, keys: int = 10, size: int = 16) -> Flush:
    """`count` revisions from `first_main` on, round robin over the keys, with values of their own."""
    mains = range(first_main, first_main + count)
    return flush(index, [put(m, b"key-%d" % (m % keys), b"%d" % m * (size // 8)) for m in mains])


class Model:
    """What the tables must hold after the flushes that were made so far."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.index = 0
        self.revision = 1
        self.compact_revision = -1
        self.rows: list[RevisionRow] = []
        self.items: dict[tuple[str, bytes], bytes] = {}

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def make_flush(self, revisions: int) -> Flush:
        self.index += self._random.randint(1, 3)
        rows = [row for _ in range(revisions) for row in self._make_revision()]
        items = [self._make_item() for _ in range(self._random.randint(0, 3))]
        self.rows += rows
        return Flush(
            Index(self.index), Term(1), self.revision, self.compact_revision, rows, items, MEMBERSHIP
        )

    def _make_revision(self) -> list[RevisionRow]:
        self.revision += 1
        keys = self._random.sample(range(8), self._random.randint(1, 3))
        return [self._change(b"\x00key\xff%d" % key, sub) for sub, key in enumerate(keys)]

    def _change(self, key: bytes, sub: int) -> RevisionRow:
        if self._random.random() < 0.3:
            return delete(self.revision, key, sub)
        value = self._random.randbytes(self._random.choice([0, 1, 40]))
        return put(self.revision, key, value, sub, version=self._random.randint(1, 2**62))

    def _make_item(self) -> StateItem:
        part, key = self._random.choice(["session", "alarm"]), b"\x00%d" % self._random.randrange(4)
        if self._random.random() < 0.3:
            self.items.pop((part, key), None)
            return StateItem(part, key, None)
        self.items[(part, key)] = self._random.randbytes(5)
        return StateItem(part, key, self.items[(part, key)])

    def compact(self) -> None:
        if self.revision > self.compact_revision:
            self.compact_revision = self._random.randint(max(1, self.compact_revision + 1), self.revision)

    def needed(self) -> list[RevisionRow]:
        """What a compaction must leave: written down row by row, unlike the SQL."""
        newest: dict[bytes, RevisionRow] = {}
        for row in self.rows:
            if row.main <= self.compact_revision:
                newest[row.key] = row
        kept = {
            (row.key, row.main)
            for row in newest.values()
            if not row.tombstone or row.main == self.compact_revision
        }
        return [row for row in self.rows if row.main > self.compact_revision or (row.key, row.main) in kept]

    def current(self) -> list[RevisionRow]:
        newest = {row.key: row for row in self.rows}
        return [row for row in self.rows if newest[row.key] is row and not row.tombstone]

    def check(self, tables: Tables, rewritten: bool = False) -> None:
        """The tables on disk hold this state: all that is needed, and nothing else if `rewritten`."""
        assert tables.applied_index == self.index
        assert (tables.revision, tables.compact_revision) == (self.revision, self.compact_revision)
        history = read_history(tables)
        needed = [(row.key, row.main, row.tombstone) for row in self.needed()]
        assert set(needed) <= set(history) <= {(row.key, row.main, row.tombstone) for row in self.rows}
        if rewritten:
            assert history == needed
        assert [main for _, main, _ in history] == sorted(main for _, main, _ in history)
        assert sorted(row for batch in tables.load_current() for row in batch) == self.current()
        assert {(i.part, i.key): i.value for i in tables.load_items()} == self.items
        assert tables.rows([Point(row.key, row.main) for row in self.needed()]) == self.needed()


def read_history(tables: Tables) -> list[tuple[bytes, int, bool]]:
    return [row for batch in tables.load_history() for row in batch]


def names(directory: Path) -> list[str]:
    """Files of the tables, without WALs."""
    return sorted(p.name for p in directory.iterdir() if not p.name.endswith(".wal"))
