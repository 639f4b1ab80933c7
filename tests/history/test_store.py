"""The store: what was appended is there, once, whatever was sealed, repeated, dropped or damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError
from etcray_storage.history.manifest import PARTS
from etcray_storage.history.retention import Retention
from etcray_storage.history.rows import Compaction, Gap, HistoryBatch, rows_table
from tests.history.model import Model, all_rows, ask, expected_rows, open_store, pairs_of, rows_of


def grown(seed: int, revisions: int) -> Model:
    model = Model()
    model.grow(random.Random(seed), revisions)
    return model


def test_a_new_store_is_at_the_first_revision_and_empty(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert (store.position, all_rows(store), pairs_of(store, "kv_at(1)")) == (1, [], set())
    store.close()


def test_rows_are_the_same_in_tail_and_parts_and_after_reopening(tmp_path: Path) -> None:
    model = grown(1, 60)
    store = open_store(tmp_path)
    for after, through, seals in ((1, 20, True), (20, 41, False), (41, 50, True), (50, 61, False)):
        store.append(model.batch(after, through))
        if seals:
            store.seal()
    assert all_rows(store) == expected_rows(model.rows)
    assert (store.status().parts, store.status().tail_rows > 0) == (2, True)
    store.close()
    again = open_store(tmp_path)
    assert (again.position, again.damage) == (61, [])
    assert all_rows(again) == expected_rows(model.rows)
    again.close()


def test_a_repeated_or_overlapping_batch_adds_only_what_is_new(tmp_path: Path) -> None:
    model = grown(2, 30)
    store = open_store(tmp_path)
    store.append(model.batch(1, 20))
    assert store.append(model.batch(1, 20)) == 0
    store.seal()
    assert store.append(model.batch(5, 15)) == 0
    assert store.append(model.batch(10, 31)) == len([row for row in model.rows if row.main > 20])
    assert all_rows(store) == expected_rows(model.rows)
    store.close()


def test_a_batch_that_leaves_something_out_is_a_programmers_error(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(AssertionError, match="leaves out"):
        store.append(grown(3, 9).batch(4, 9))
    store.close()


def test_compactions_are_remembered_once_over_seals_and_restarts(tmp_path: Path) -> None:
    model = grown(4, 10)
    store = open_store(tmp_path)
    store.append(model.batch(1, 5)._replace(compactions=[Compaction(3, 77)]))
    store.seal()
    store.append(HistoryBatch(5, 5, rows_table([]), [Compaction(3, 99), Compaction(4, 100)]))
    store.close()
    store = open_store(tmp_path)
    assert [row[0] for row in rows_of(ask(store, "SELECT * FROM compactions ORDER BY 1"))] == [3, 4]
    store.close()


def test_only_one_process_and_only_one_cluster_use_a_directory(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(DataDirectoryInUseError):
        open_store(tmp_path)
    store.close()
    with pytest.raises(DataDirectoryError, match="of cluster cafe"):
        type(store).open(tmp_path, "beef", Retention(), lambda: 0)


def test_parts_cannot_be_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(grown(5, 5).batch(1, 6))
    store.seal()
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / PARTS).iterdir()] == [0o400]
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_base_keeps_what_was_and_is_right_from_its_revision_on(tmp_path: Path, seed: int) -> None:
    model = grown(seed, 80)
    store = open_store(tmp_path)
    store.append(model.batch(1, 30))
    assert store.needs_base(50)
    assert not store.needs_base(30)
    base = store.begin_base(50)
    rows = model.compacted(50)
    base.add(rows.slice(0, 2))
    base.add(rows.slice(2))
    base.finish()
    assert store.position == 50
    store.append(model.batch(50, 81))
    assert store.status().gaps == [Gap(31, 49)]
    for revision in (2, 17, 30, 50, 51, 66, 81):
        assert pairs_of(store, f"kv_at({revision})") == model.pairs(revision), revision
    for revision in (31, 40, 49):
        assert ask(store, f"FROM kv_at({revision})").error_code == "retention"
    store.close()


def test_an_aborted_base_changes_nothing(tmp_path: Path) -> None:
    model = grown(6, 40)
    store = open_store(tmp_path)
    store.append(model.batch(1, 10))
    base = store.begin_base(20)
    base.add(model.compacted(20))
    base.abort()
    assert (store.position, all_rows(store)) == (10, expected_rows([r for r in model.rows if r.main <= 10]))
    base = store.begin_base(30)
    base.add(model.compacted(30))
    base.finish()
    assert pairs_of(store, "kv") == model.pairs(30)
    store.close()


def test_a_base_of_an_empty_store_forgets_what_was_before_it(tmp_path: Path) -> None:
    model = grown(7, 40)
    store = open_store(tmp_path)
    base = store.begin_base(25)
    base.add(model.compacted(25))
    base.finish()
    assert (store.status().gaps, store.status().first_revision) == ([Gap(1, 24)], 25)
    assert pairs_of(store, "kv_at(25)") == model.pairs(25)
    assert "ask for 25 or later" in ask(store, "FROM kv_at(24)").error_message
    store.close()


@pytest.mark.parametrize(
    ("retention", "first"),
    [
        (Retention(), 1),
        (Retention(revisions=25), 70),
        (Retention(revisions=20), 80),
        (Retention(age_seconds=0), 90),
        (Retention(bytes=1), 90),
    ],
)
def test_retention_drops_whole_parts_and_keeps_every_later_state(
    tmp_path: Path, retention: Retention, first: int
) -> None:
    model = grown(8, 99)
    store = open_store(tmp_path, now_ms=10**9)
    for after in range(0, 100, 10):
        store.append(model.batch(max(after, 1), after + 10))
        store.seal()
    store.retention = retention
    store.forget()
    store.forget()
    assert store.status().first_revision == first
    for revision in range(first, 101):
        assert pairs_of(store, f"kv_at({revision})") == model.pairs(revision), revision
    if first > 1:
        assert ask(store, f"FROM kv_at({first - 1})").error_code == "retention"
        kept = [row for row in all_rows(store) if row[2] > first]
        assert kept == expected_rows([row for row in model.rows if row.main > first])
    store.close()


def test_a_dropped_part_stays_until_its_snapshot_is_released(tmp_path: Path) -> None:
    model = grown(9, 40)
    store = open_store(tmp_path, Retention(revisions=1))
    for after in (1, 10, 20, 30):
        store.append(model.batch(after, after + 10 if after > 1 else 10))
        store.seal()
    snapshot = store.snapshot()
    store.forget()
    assert all(Path(part).exists() for part in snapshot.parts)
    snapshot.release()
    assert [Path(part).exists() for part in snapshot.parts] == [False, False, False, True]
    store.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_part_is_dropped_and_fetched_again(tmp_path: Path, damage: str) -> None:
    model = grown(10, 40)
    store = open_store(tmp_path)
    for after, through in ((1, 10), (10, 20), (20, 30)):
        store.append(model.batch(after, through))
        store.seal()
    part = Path(store.snapshot().parts[1])
    content = part.read_bytes()
    part.chmod(0o600)
    if damage == "flip":
        part.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
        assert store.verify() == [f"{part.name} has another checksum"]
    else:
        part.write_bytes(content[:-9])
        if damage == "remove":
            part.unlink()
        store.close()
        store = open_store(tmp_path)
    assert (store.position, len(store.damage)) == (10, 1)
    store.append(model.batch(10, 41))
    assert all_rows(store) == expected_rows(model.rows)
    store.close()


@pytest.mark.parametrize("name", ["manifest.json", "tail"])
def test_a_damaged_manifest_or_tail_costs_only_what_it_held(tmp_path: Path, name: str) -> None:
    model = grown(11, 30)
    store = open_store(tmp_path)
    store.append(model.batch(1, 20))
    store.seal()
    store.append(model.batch(20, 25))
    store.close()
    path = next(tmp_path.glob(f"{name}*"))
    path.write_bytes(b"nonsense" * 600)
    store = open_store(tmp_path)
    assert store.position == (1 if name == "manifest.json" else 20)
    assert len(store.damage) == 1
    store.append(model.batch(1, 31))
    assert all_rows(store) == expected_rows(model.rows)
    store.close()
