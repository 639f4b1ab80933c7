"""Flushing, loading and reading: what is staged or written is there, in order, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etcray_storage import errors
from etcray_storage.engine import Engine
from etcray_storage.errors import DataDirectoryError, EtcdError, StorageCorruptError, StorageFullError
from etcray_storage.mvcc import schema
from etcray_storage.mvcc.rows import Point, StateItem
from etcray_storage.mvcc.tables import Tables
from etcray_storage.types import MemberId, Membership
from tests.storage.tables_model import MEMBERSHIP, delete, flush, names, put, puts, read_history

FOUNDERS = Membership((MemberId(3), MemberId(7)))


def write(tables: Tables, *flushes: Any) -> None:
    for each in flushes:
        tables.stage(each)
        tables.write()


def test_fresh_tables_are_empty_at_revision_one(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    assert (tables.applied_index, tables.applied_term) == (0, 0)
    assert (tables.revision, tables.compact_revision) == (1, -1)
    assert (read_history(tables), list(tables.load_current()), tables.load_items()) == ([], [], [])
    tables.close()


def test_membership_is_the_bootstrapped_one_then_that_of_the_newest_flush(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    tables.bootstrap(FOUNDERS)
    tables.close()
    tables = Tables.open(tmp_path)
    assert tables.membership == FOUNDERS
    write(tables, puts(1, 2, 3)._replace(membership=FOUNDERS), puts(2, 5, 3))
    tables.maintain(force=True)
    assert tables.membership == MEMBERSHIP
    tables.close()
    tables = Tables.open(tmp_path)
    assert tables.membership == MEMBERSHIP
    tables.close()


@pytest.mark.parametrize("count", [1, schema.SMALL_INSERT_ROWS, schema.SMALL_INSERT_ROWS + 1, 25_000])
def test_flush_of_any_size_comes_back_unchanged(tmp_path: Path, count: int) -> None:
    tables = Tables.open(tmp_path)
    rows = [
        put(2, b"", b"\x00\xff", version=2**63 - 1),
        delete(2, b"\xff\x00", sub=1),
        *(put(m, b"%d" % m, b"v%d" % m) for m in range(3, count + 2)),
    ]
    write(tables, flush(9, rows))
    tables.close()
    tables = Tables.open(tmp_path)
    assert (tables.applied_index, tables.revision) == (9, rows[-1].main)
    current = sorted(row for batch in tables.load_current() for row in batch)
    assert current == [row for row in rows if not row.tombstone]
    assert read_history(tables) == [(row.key, row.main, row.tombstone) for row in rows]
    assert tables.rows([Point(row.key, row.main) for row in rows]) == rows
    tables.close()


def test_newest_item_of_each_part_and_key_is_loaded(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    first = [
        StateItem("session", b"1", b"a"),
        StateItem("session", b"2", b""),
        StateItem("alarm", b"1", b"x"),
    ]
    second = [StateItem("session", b"1", b"b"), StateItem("alarm", b"1", None)]
    third = [StateItem("lease", b"5", b"1"), StateItem("lease", b"5", b"2")]
    write(tables, *(flush(i, items=items) for i, items in enumerate([first, second, third], 1)))
    expected = [
        StateItem("session", b"2", b""),
        StateItem("session", b"1", b"b"),
        StateItem("lease", b"5", b"2"),
    ]
    assert tables.load_items() == expected
    tables.maintain(force=True)
    assert tables.load_items() == expected
    tables.close()


def test_flush_without_rows_moves_the_applied_index(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 3), flush(7, revision=4), flush(8, revision=4, compact_revision=3))
    assert (tables.applied_index, tables.revision, tables.compact_revision) == (8, 4, 3)
    tables.close()


def test_staged_rows_are_found_before_during_and_after_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 5))
    flushes = [puts(2, 7, 5), puts(3, 12, 5)]
    points = [Point(b"key-%d" % (m % 10), m) for m in range(16, 1, -1)]

    def check(*_: object) -> None:
        assert [(row.key, row.main) for row in tables.rows(points)] == points

    for each in flushes:
        tables.stage(each)
    check()
    assert tables.applied_index == 1
    insert_meta = schema.insert_meta

    def insert_meta_between_checks(engine: Engine, meta: schema.Meta) -> None:
        check()
        insert_meta(engine, meta)
        check()

    monkeypatch.setattr(schema, "insert_meta", insert_meta_between_checks)
    monkeypatch.setattr("etcray_storage.mvcc.tables.sync_directory", check)
    tables.write()
    check()
    assert tables.applied_index == 3
    tables.close()


@pytest.mark.parametrize("count", [5, 500])
@pytest.mark.parametrize("step", ["insert_items", "insert_meta"])
def test_full_disk_writes_nothing_and_keeps_the_rows_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, step: str
) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 5))

    def fail(*_: object) -> None:
        raise StorageFullError("no space left")

    tables.stage(puts(2, 7, count)._replace(items=[StateItem("session", b"1", b"a")]))
    with monkeypatch.context() as patch:
        patch.setattr(schema, step, fail)
        for _ in range(2):
            with pytest.raises(StorageFullError):
                tables.write()
    assert (tables.applied_index, len(read_history(tables)), tables.load_items()) == (1, 5, [])
    assert tables.rows([Point(b"key-7", 7)])[0].main == 7
    tables.stage(puts(3, 7 + count, 1))
    tables.write()
    assert (tables.applied_index, len(read_history(tables))) == (3, 6 + count)
    assert tables.load_items() == [StateItem("session", b"1", b"a")]
    tables.close()


def test_close_forgets_what_is_staged(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 5))
    tables.stage(puts(2, 7, 5))
    tables.close()
    tables = Tables.open(tmp_path)
    assert (tables.applied_index, len(read_history(tables))) == (1, 5)
    tables.close()


def test_rows_answers_in_the_order_asked_with_repetitions(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 300))
    tables.stage(puts(2, 302, 10))
    asked = [Point(b"key-%d" % (m % 10), m) for m in (305, 2, 299, 2, 311, 305)]
    assert [(row.key, row.main) for row in tables.rows(asked)] == asked
    assert tables.rows([]) == []
    tables.close()


def test_one_of_many_keys_of_one_revision_is_found(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, flush(1, [put(2, b"%d" % sub, sub=sub) for sub in range(1000)]))
    assert tables.rows([Point(b"777", 2)])[0].sub == 777
    tables.close()


def test_missing_row_is_compacted_below_the_compact_revision_and_damage_above(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 50), flush(2, revision=51, compact_revision=40))
    tables.maintain(force=True)
    with pytest.raises(EtcdError) as compacted:
        tables.rows([Point(b"key-2", 2)])
    assert compacted.value.number == errors.COMPACTED.number
    with pytest.raises(StorageCorruptError, match="revision 45"):
        tables.rows([Point(b"no such key", 45)])
    tables.close()


def test_flush_that_goes_back_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(5, 2, 5))
    with pytest.raises(AssertionError, match="flush of 4 staged after 5"):
        tables.stage(puts(4, 7, 1))
    with pytest.raises(AssertionError, match="has rows 6 to 6"):
        tables.stage(puts(6, 6, 1))
    tables.close()


def test_tables_of_a_newer_version_are_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "FORMAT_VERSION", 3)
        Tables.open(tmp_path).close()
    before = (tmp_path / "mvcc-00000001.duckdb").read_bytes()
    with pytest.raises(DataDirectoryError, match="format 3"):
        Tables.open(tmp_path)
    assert (tmp_path / "mvcc-00000001.duckdb").read_bytes() == before


def test_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "mvcc-00000004.duckdb").write_bytes(b"\x00" * 100_000)
    with pytest.raises(StorageCorruptError, match="mvcc-00000004"):
        Tables.open(tmp_path)


def test_revisions_beyond_the_meta_row_are_corrupt(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    write(tables, puts(1, 2, 5))
    tables.close()
    engine = Engine.open(tmp_path / "mvcc-00000001.duckdb")
    schema.insert_revisions(engine, [put(7, b"stray")])
    engine.close()
    with pytest.raises(StorageCorruptError, match="holds revision 7"):
        Tables.open(tmp_path)


def test_open_takes_the_newest_generation_and_removes_all_else(tmp_path: Path) -> None:
    for number, count in ((3, 5), (11, 6)):
        other = tmp_path / "other"
        tables = Tables.open(other)
        write(tables, puts(count, 2, count))
        tables.close()
        (other / "mvcc-00000001.duckdb").rename(tmp_path / f"mvcc-{number:08}.duckdb")
    for leftover in ("mvcc-rewrite.building", "mvcc-rewrite.building.wal", "mvcc-00000003.duckdb.wal"):
        (tmp_path / leftover).write_bytes(b"half")
    (tmp_path / "mvcc-export.work").mkdir()
    (tmp_path / "mvcc-export.work" / "items.parquet").write_bytes(b"half")
    (tmp_path / "log-1.duckdb").write_bytes(b"not ours")
    other.rmdir()
    tables = Tables.open(tmp_path)
    assert tables.applied_index == 6
    assert names(tmp_path) == ["log-1.duckdb", "mvcc-00000011.duckdb"]
    tables.close()
