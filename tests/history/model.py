"""A naive model of the history: all rows in a list, every question answered by looking at all of them."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from etcray_storage.history.messages import Answer, Query, Run
from etcray_storage.history.retention import Retention
from etcray_storage.history.rows import COMPACTIONS_SCHEMA, HistoryBatch, empty_sides, rows_table
from etcray_storage.history.sandbox import Sandbox
from etcray_storage.history.store import HistoryStore

HISTORY_COLUMNS = (
    "key",
    "value",
    "mod_revision",
    "sub_revision",
    "create_revision",
    "version",
    "lease",
    "op",
)
KEY_COLUMNS = ("key", "value", "mod_revision", "create_revision", "version", "lease")
KEYS = (b"/a/x", b"/a/y", b"/b/x/1", b"/b/x/2", b"plain", b"\xff\x00", b"/a", b"")


@cache
def _sandbox() -> Sandbox:
    return Sandbox()


class Row(NamedTuple):
    main: int
    sub: int
    key: bytes
    value: bytes
    create_revision: int
    version: int
    lease: int
    tombstone: bool
    time_ms: int
    author: str


class Model:
    """Makes revisions as a member would, and remembers them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.revision = 1
        self.time_ms = 1_000
        self._live: dict[bytes, Row] = {}

    def change(self, changes: dict[bytes, bytes | None], pause_ms: int = 7, lease: int = 0) -> None:
        """One transaction: None deletes. A deletion of what is not there is none."""
        effective = {key: value for key, value in changes.items() if value is not None or key in self._live}
        if not effective:
            return
        self.revision += 1
        self.time_ms += pause_ms
        for sub, (key, value) in enumerate(effective.items()):
            if value is None:
                del self._live[key]
                row = Row(self.revision, sub, key, b"", 0, 0, 0, True, self.time_ms, "")
            else:
                old = self._live.get(key)
                created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
                row = Row(self.revision, sub, key, value, created, version, lease, False, self.time_ms, "me")
                self._live[key] = row
            self.rows.append(row)

    def batch(self, after: int, through: int) -> HistoryBatch:
        return HistoryBatch(after, through, self.table(after, through), [])

    def table(self, after: int, through: int) -> pa.Table:
        return rows_table([row for row in self.rows if after < row.main <= through])

    def compacted(self, revision: int) -> pa.Table:
        """The rows up to a revision that a compaction at it leaves."""
        newest = {row.key: row for row in self.rows if row.main <= revision}
        kept = [row for row in newest.values() if not row.tombstone or row.main == revision]
        return rows_table(sorted(kept))

    def state(self, revision: int) -> dict[bytes, Row]:
        newest = {row.key: row for row in self.rows if row.main <= revision}
        return {key: row for key, row in newest.items() if not row.tombstone}

    def pairs(self, revision: int) -> set[tuple[Any, ...]]:
        """As KEY_COLUMNS name them."""
        return {
            (row.key, row.value, row.main, row.create_revision, row.version, row.lease)
            for row in self.state(revision).values()
        }

    def grow(self, rng: random.Random, revisions: int) -> None:
        until = self.revision + revisions
        while self.revision < until:
            keys = rng.sample(KEYS, rng.choice((1, 1, 1, 2, 3)))
            values = (None, b"", b"one", b'{"n": 1}', b"\xfe\xff", str(self.revision).encode())
            self.change({key: rng.choice(values) for key in keys}, rng.choice((0, 1, 50)), rng.choice((0, 9)))


def open_store(directory: Path, retention: Retention | None = None, now_ms: int = 0) -> HistoryStore:
    return HistoryStore.open(directory, "cafe", retention or Retention(), lambda: now_ms)


def ask(store: HistoryStore, sql: str, *parameters: Any, **limits: int) -> Answer:
    """Run a query in this process, on a locked instance but without the worker's confinement."""
    snapshot = store.snapshot()
    try:
        sides = empty_sides()
        compactions = [pa.array(column, pa.int64()) for column in zip(*snapshot.compactions, strict=True)]
        relations = {
            "tail": pa.concat_tables([rows_table([]), *snapshot.tail]),
            "lease_rows": sides.leases,
            "member_rows": sides.members,
            "compaction_rows": pa.Table.from_arrays(compactions, schema=COMPACTIONS_SCHEMA)
            if compactions
            else COMPACTIONS_SCHEMA.empty_table(),
        }
        query = Query("query", sql, list(parameters), **limits)
        run = Run(query, snapshot.position, snapshot.parts, snapshot.gaps, snapshot.epoch, [], 256)
        return _sandbox().run(run, relations)
    finally:
        snapshot.release()


def table_of(answer: Answer) -> pa.Table:
    assert not answer.error_code, f"{answer.error_code}: {answer.error_message}"
    return pa.ipc.open_stream(answer.arrow).read_all()


def rows_of(answer: Answer) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table_of(answer).to_pylist()]


def pairs_of(store: HistoryStore, table: str, *parameters: Any) -> set[tuple[Any, ...]]:
    return set(rows_of(ask(store, f"SELECT {', '.join(KEY_COLUMNS)} FROM {table}", *parameters)))


def all_rows(store: HistoryStore) -> list[tuple[Any, ...]]:
    """Everything that the store holds, in order, as the model's rows without time and author."""
    return rows_of(
        ask(store, f"SELECT {', '.join(HISTORY_COLUMNS)} FROM history ORDER BY mod_revision, sub_revision")
    )


def expected_rows(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [
        (
            *(row.key, row.value, row.main, row.sub, row.create_revision, row.version, row.lease),
            "delete" if row.tombstone else "put",
        )
        for row in rows
    ]
