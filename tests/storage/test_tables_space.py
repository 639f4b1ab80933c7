"""Compaction: what is needed stays, what is not gives its space back, and nobody has to wait."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from etcray_storage.errors import StorageFullError
from etcray_storage.mvcc import space
from etcray_storage.mvcc import tables as tables_module
from etcray_storage.mvcc.generations import wal_path
from etcray_storage.mvcc.rewrite import Rewrite
from etcray_storage.mvcc.rows import Point, StateItem
from etcray_storage.mvcc.tables import Tables
from tests.storage.tables_model import delete, flush, names, put, puts, read_history


def test_tombstone_at_the_compact_revision_stays_and_older_ones_go(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    rows = [put(2, b"a"), put(3, b"b"), put(4, b"c"), delete(5, b"a"), delete(6, b"b"), put(7, b"c")]
    tables.stage(flush(1, rows, compact_revision=6))
    tables.write()
    tables.maintain(force=True)
    assert read_history(tables) == [(b"c", 4, False), (b"b", 6, True), (b"c", 7, False)]
    tables.stage(flush(2, revision=7, compact_revision=7))
    tables.write()
    tables.maintain(force=True)
    assert read_history(tables) == [(b"c", 7, False)]
    tables.close()


def test_rewrite_gives_the_space_back_to_the_disk(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    noise = random.Random(1)
    rows = [put(m, b"key-%d" % (m % 10), noise.randbytes(1000)) for m in range(2, 10_002)]
    tables.stage(flush(1, rows))
    tables.write()
    tables.stage(flush(2, revision=10_001, compact_revision=10_001))
    tables.write()
    assert tables.size_bytes > 9_000_000
    tables.maintain(force=True)
    assert tables.size_bytes < 1_500_000
    assert names(tmp_path) == ["mvcc-00000002.duckdb"]
    assert not wal_path(tmp_path / "mvcc-00000001.duckdb").exists()
    assert len(read_history(tables)) == 10
    tables.close()


def test_maintain_rewrites_when_half_is_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "TABLES_GARBAGE_BYTES_MIN", 1)
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 20_000, size=800))
    tables.write()
    tables.stage(flush(2, revision=20_001, compact_revision=5_000))
    tables.write()
    tables.maintain()
    assert names(tmp_path) == ["mvcc-00000001.duckdb"]
    assert 0.7 < tables.size_in_use_bytes / tables.size_bytes < 0.8
    tables.stage(flush(3, revision=20_001, compact_revision=15_000))
    tables.write()
    tables.maintain()
    assert names(tmp_path) == ["mvcc-00000002.duckdb"]
    assert len(read_history(tables)) == 5_001 + 10
    assert tables.size_in_use_bytes == tables.size_bytes
    tables.close()


def test_items_that_are_replaced_often_are_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "TABLES_GARBAGE_BYTES_MIN", 1)
    tables = Tables.open(tmp_path)
    for index in range(1, 12):
        value = random.Random(index).randbytes(200_000)
        tables.stage(flush(index, items=[StateItem("session", b"1", value)]))
        tables.write()
    assert tables.size_in_use_bytes < tables.size_bytes // 3
    tables.maintain()
    assert names(tmp_path) == ["mvcc-00000002.duckdb"]
    assert tables.load_items() == [StateItem("session", b"1", value)]
    tables.close()


def test_maintain_checkpoints_a_long_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables.open(tmp_path)
    wal = wal_path(tmp_path / "mvcc-00000001.duckdb")
    tables.stage(puts(1, 2, 1000))
    tables.write()
    tables.maintain()
    assert wal.stat().st_size > 10_000
    monkeypatch.setattr(tables_module, "TABLES_WAL_BYTES", 10_000)
    tables.maintain()
    assert not wal.exists()
    tables.stage(puts(2, 1002, 5))
    tables.write()
    assert len(read_history(tables)) == 1005
    tables.close()


def test_rewrite_takes_along_what_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 100)._replace(items=[StateItem("s", b"1", b"a"), StateItem("s", b"2", b"a")]))
    tables.write()
    copy = Rewrite.copy

    def copy_then_write(rewrite: Rewrite) -> None:
        copy(rewrite)
        meanwhile = puts(2, 102, 100)._replace(compact_revision=150, items=[StateItem("s", b"1", None)])
        tables.stage(meanwhile)
        tables.write()

    monkeypatch.setattr(Rewrite, "copy", copy_then_write)
    tables.maintain(force=True)
    tables.close()
    tables = Tables.open(tmp_path)
    assert [main for _, main, _ in read_history(tables)] == list(range(2, 202))
    assert tables.load_items() == [StateItem("s", b"2", b"a")]
    assert (tables.applied_index, tables.compact_revision) == (2, 150)
    tables.close()


def test_rewrite_on_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 100))
    tables.write()

    def fail(_: Rewrite) -> None:
        raise StorageFullError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Rewrite, "catch_up", fail)
        with pytest.raises(StorageFullError):
            tables.maintain(force=True)
    assert names(tmp_path) == ["mvcc-00000001.duckdb"]
    tables.stage(puts(2, 102, 10))
    tables.write()
    tables.maintain(force=True)
    assert len(read_history(tables)) == 110
    tables.close()


def test_rows_are_found_while_writes_checkpoints_and_rewrites_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader asks for the newest staged revision and for an old one, over and over."""
    monkeypatch.setattr(tables_module, "TABLES_WAL_BYTES", 1)
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 100))
    tables.write()
    newest = [101]
    stop = threading.Event()
    failures: list[BaseException] = []
    reads = [0]

    def read(seed: int) -> None:
        choose = random.Random(seed)
        try:
            while not stop.is_set():
                mains = [newest[0], choose.randint(2, newest[0])]
                points = [Point(b"key-%d" % (m % 10), m) for m in mains]
                assert [(row.key, row.main) for row in tables.rows(points)] == points
                reads[0] += 1
        except BaseException as e:
            failures.append(e)

    def maintain() -> None:
        try:
            while not stop.is_set():
                tables.maintain()
                tables.maintain(force=True)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
    threads.append(threading.Thread(target=maintain))
    for thread in threads:
        thread.start()
    for index in range(2, 60):
        tables.stage(puts(index, newest[0] + 1, 20))
        newest[0] += 20
        tables.write()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert reads[0] > 5
    assert tables.applied_index == 59
    assert names(tmp_path) != ["mvcc-00000001.duckdb"]
    assert [main for _, main, _ in read_history(tables)] == list(range(2, newest[0] + 1))
    tables.close()
