"""HashKV: equal exactly where the readable history is, whatever each member has flushed and dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcray_storage import errors
from etcray_storage.errors import EtcdError
from etcray_storage.mvcc.kv_hash import KvHash, hash_revisions
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.mvcc.tables import Tables
from tests.storage.tables_model import Model, delete, flush, put, puts


def hashed(tables: Tables, revision: int = 0) -> KvHash:
    found = tables.hash_kv(revision)
    assert found is not None
    return found


def refused(tables: Tables, revision: int) -> int:
    with pytest.raises(EtcdError) as caught:
        tables.hash_kv(revision)
    return caught.value.number


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables.open(tmp_path / "tables")


def store(tables: Tables, *rows: RevisionRow, compact: int = -1) -> None:
    tables.stage(flush(tables.applied_index + 1, rows, compact))
    tables.write()


def test_empty_store_has_a_hash_and_no_other_revision(tables: Tables) -> None:
    found = hashed(tables)
    assert (found.revision, found.compact_revision) == (1, -1)
    assert hashed(tables, 1) == found
    assert refused(tables, 2) == errors.FUTURE_REV.number
    tables.close()


def test_old_revision_keeps_its_hash_while_history_goes_on(tables: Tables) -> None:
    seen = {}
    for revision in range(2, 12):
        store(tables, put(revision, b"key-%d" % (revision % 3)))
        seen[revision] = hashed(tables)
        assert seen[revision].revision == revision
    for revision, found in seen.items():
        assert hashed(tables, revision) == found
    assert len({found.hash for found in seen.values()}) == len(seen)
    tables.close()


def test_below_the_compact_revision_there_is_no_hash_but_at_it(tables: Tables) -> None:
    store(tables, *(put(revision, b"key") for revision in range(2, 12)), compact=7)
    assert refused(tables, 6) == errors.COMPACTED.number
    assert refused(tables, 1) == errors.COMPACTED.number
    assert refused(tables, 12) == errors.FUTURE_REV.number
    assert hashed(tables, 7).revision == 7
    assert hashed(tables, 7).compact_revision == hashed(tables).compact_revision == 7
    tables.close()


@pytest.mark.parametrize(
    "change",
    [
        {"value": b"another"},
        {"value": b""},
        {"key": b"another"},
        {"create_revision": 1},
        {"version": 2},
        {"lease": 1},
        {"time_ms": 1},
        {"author": "nobody"},
        {"sub": 7},
    ],
)
def test_every_column_counts(tmp_path: Path, change: dict[str, object]) -> None:
    row = put(2, b"key")
    hashes = set()
    for number, each in enumerate((row, row._replace(**change))):  # type: ignore[arg-type]
        tables = Tables.open(tmp_path / str(number))
        store(tables, each)
        hashes.add(hashed(tables).hash)
        tables.close()
    assert len(hashes) == 2


def test_border_between_key_and_value_counts(tmp_path: Path) -> None:
    hashes = set()
    for key, value in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")):
        tables = Tables.open(tmp_path / key.hex())
        store(tables, put(2, key, value))
        hashes.add(hashed(tables).hash)
        tables.close()
    assert len(hashes) == 3


def test_deletion_at_the_compact_revision_counts_and_before_it_does_not(tmp_path: Path) -> None:
    """A reader at the compact revision may still watch the first and can see nothing of the second."""
    found = {}
    for name, key in (("with", b"gone"), ("without", b"")):
        tables = Tables.open(tmp_path / name)
        rows = [put(2, b"kept")]
        rows += [put(3, key), delete(4, key)] if key else []
        store(tables, *rows, put(5, b"kept"))
        store(tables, put(6, b"kept"), compact=4)
        at_the_deletion = hashed(tables)
        store(tables, put(7, b"kept"), compact=5)
        found[name] = (at_the_deletion, hashed(tables))
        tables.close()
    assert found["with"][0] != found["without"][0]
    assert found["with"][1] == found["without"][1]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), data=st.data())
def test_members_that_write_and_drop_at_different_times_have_equal_hashes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("members")
    members = [Tables.open(directory / name) for name in ("prompt", "late")]
    model = Model(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        made = model.make_flush(data.draw(st.integers(0, 8)))
        for tables in members:
            tables.stage(made)
        for tables in members:
            if data.draw(st.booleans()):
                tables.write()
                tables.maintain(force=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            model.compact()
    for tables in members:
        tables.write()
    assert hashed(members[0]) == hashed(members[1])
    members[0].maintain(force=True)
    low = max(members[0].compact_revision, 1)
    for revision in {0, low, (low + members[0].revision) // 2, members[0].revision}:
        assert hashed(members[0], revision) == hashed(members[1], revision)
    exported = members[0].export_snapshot(directory)
    (directory / "third").mkdir()
    third = Tables.install_snapshot(directory / "third", exported.path, exported.sha256)
    assert hashed(third) == hashed(members[1])
    for tables in (*members, third):
        tables.close()


def test_read_that_is_under_way_outlives_a_rewrite_and_the_tables(tables: Tables) -> None:
    """DuckDB closes all connections of an instance with the first one: a read of history that met a
    rewrite used to fail with `Connection already closed`."""
    tables.stage(puts(1, 2, 20_000))
    tables.write()
    before = hashed(tables)
    with tables.reading() as engine, tables.reading() as other:
        assert engine is not None
        assert other is not None
        rows = engine.query_batches("SELECT main FROM revisions", rows_per_batch=100)
        assert len(next(rows)) == 100
        tables.maintain(force=True)
        assert sum(len(batch) for batch in rows) == 19_900
        assert hash_revisions(other, 0) == before
        assert hashed(tables) == before
        with tables.reading() as newest:
            assert newest is not None
            tables.close()
            assert hash_revisions(newest, 0) == before
    assert tables.hash_kv() is None
