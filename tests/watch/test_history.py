"""Reads of the past over a real state machine and real tables, against a model that forgets nothing."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcray.node.api import HistoryRequest
from etcray.node.history import History, read_history
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.events import in_range
from etcray_storage.mvcc.rows import Change
from etcray_storage.mvcc.store import Store
from etcray_storage.mvcc.tables import Tables

KEYS = [b"a", b"a1", b"b", b"c"]
RANGES = [(b"a", b""), (b"b", b""), (b"a", b"b"), (b"a", b"\0"), (b"\0", b"\0"), (b"a1", b"c")]


class Past:
    """A member's state without its threads; the store is driven directly."""

    def __init__(self, directory: Path) -> None:
        self.tables = Tables.open(directory)
        self.machine = StateMachine(self.tables, [])
        self.state = threading.Lock()
        self.truth: list[Change] = []

    @property
    def applier(self) -> Past:
        return self

    @property
    def store(self) -> Store:
        return self.machine._store

    def write(self, rng: random.Random) -> None:
        self.store.changes = []
        self.store.begin(1)
        for key in rng.sample(KEYS, rng.choice([1, 1, 3])):
            if rng.random() < 0.3:
                self.store.delete(key, b"")
            else:
                self.store.put(key, b"v%d" % rng.randrange(100), 0)
        self.store.end()
        self.truth += self.machine.changes
        self.machine.applied_index += 1  # type: ignore[assignment]

    def flush(self) -> None:
        flush = self.machine.take_flush()
        if flush is not None:
            self.tables.stage(flush)
        self.tables.write()

    def read(self, key: bytes, end: bytes, first: int, last: int, revisions_max: int) -> History | None:
        return read_history(self, HistoryRequest(key, end, first, last, True, revisions_max, 1 << 20))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_past_is_complete_in_order_and_with_previous_pairs(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    past = Past(tmp_path_factory.mktemp("tables"))
    for _ in range(60):
        past.write(rng)
        chance = rng.random()
        if chance < 0.1:
            past.flush()
        elif chance < 0.13 and past.machine.revision > past.machine.compact_revision + 1:
            past.store.compact(rng.randrange(past.machine.compact_revision + 1, past.machine.revision + 1))
        elif chance < 0.15:
            past.flush()
            past.tables.maintain(force=True)
        elif chance < 0.4:
            check_one_read(past, rng)
    past.tables.close()


def check_one_read(past: Past, rng: random.Random) -> None:
    key, end = rng.choice(RANGES)
    last = past.machine.revision
    first = rng.randrange(1, last + 1)
    compacted = past.machine.compact_revision
    while first <= last:
        found = past.read(key, end, first, last, rng.choice([1, 2, 100]))
        assert found is not None
        if first < compacted:
            assert (found.compact_revision, found.columns.revisions) == (compacted, [])
            return
        assert first <= found.through <= last
        due = [c for c in past.truth if first <= c.main <= found.through and in_range(c.key, key, end)]
        came = list(zip(found.columns.revisions, found.columns.keys, found.columns.previous, strict=True))
        assert came == [(c.main, c.key, b"" if c.main - 1 < compacted else c.previous) for c in due]
        assert [event.endswith(c.pair) for event, c in zip(found.columns.events, due, strict=True)] == [
            True for _ in due
        ]
        first = found.through + 1


def test_deletion_at_the_compact_revision_is_still_there(tmp_path: Path) -> None:
    past = Past(tmp_path)
    for change in (lambda: past.store.put(b"k", b"v", 0), lambda: past.store.delete(b"k", b"")):
        past.store.begin(1)
        change()
        past.store.end()
        past.machine.applied_index += 1  # type: ignore[assignment]
    past.store.compact(3)
    past.machine.applied_index += 1  # type: ignore[assignment]
    past.flush()
    past.tables.maintain(force=True)
    found = past.read(b"k", b"", 3, 3, 10)
    assert found is not None
    assert (found.columns.revisions, found.columns.previous) == ([3], [b""])
    gone = past.read(b"k", b"", 2, 3, 10)
    assert gone is not None
    assert (gone.compact_revision, gone.columns.revisions) == (3, [])
    past.tables.close()


def test_revision_that_is_not_applied_yet_is_not_answered(tmp_path: Path) -> None:
    past = Past(tmp_path)
    assert past.read(b"k", b"", 2, 2, 10) is None
    past.tables.close()
    past.machine._store.revision = 2
    assert past.read(b"k", b"", 2, 2, 10) is None, "the tables are closed: a snapshot replaces them"


def test_compaction_in_the_middle_of_a_read_is_noticed(tmp_path: Path) -> None:
    past = Past(tmp_path)
    rng = random.Random(1)
    for _ in range(20):
        past.write(rng)
    past.flush()
    read_rows = past.tables.rows

    def rows_after_compaction(points):  # type: ignore[no-untyped-def]
        with past.state:
            past.store.compact(15)
            past.machine.applied_index += 1  # type: ignore[assignment]
        past.flush()
        past.tables.maintain(force=True)
        past.tables.rows = read_rows  # type: ignore[method-assign]
        return read_rows(points)

    past.tables.rows = rows_after_compaction  # type: ignore[method-assign]
    found = past.read(b"\0", b"\0", 10, 20, 100)
    assert found is not None
    assert (found.compact_revision, found.columns.revisions) == (15, [])
    past.tables.close()


def test_compaction_right_before_the_rows_are_read_is_noticed(tmp_path: Path) -> None:
    past = Past(tmp_path)
    rng = random.Random(1)
    for _ in range(20):
        past.write(rng)
    past.flush()
    read_events = past.tables.events

    def events_after_compaction(*arguments, **options):  # type: ignore[no-untyped-def]
        with past.state:
            past.store.compact(15)
            past.machine.applied_index += 1  # type: ignore[assignment]
        past.flush()
        past.tables.maintain(force=True)
        past.tables.events = read_events  # type: ignore[method-assign]
        return read_events(*arguments, **options)

    past.tables.events = events_after_compaction  # type: ignore[method-assign]
    found = past.read(b"\0", b"\0", 10, 20, 100)
    assert found is not None
    assert (found.compact_revision, found.columns.revisions) == (15, [])
    past.tables.close()
