"""Every table and function of the contract, against a model that looks at all rows."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray_storage.history.schema import TABLE_FUNCTIONS, TABLES
from etcray_storage.history.store import HistoryStore
from tests.history.model import KEYS, Model, Row, ask, expected_rows, open_store, pairs_of, rows_of, table_of


def text_of(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def json_of(content: bytes) -> Any:
    text = text_of(content)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def prefix_of(key: bytes, depth: int) -> str | None:
    text = text_of(key)
    if text is None:
        return None
    match = re.match(rf"/?([^/]*/){{{depth}}}", text)
    return match[0] if match and match[0] else text


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HistoryStore, Model]]:
    """Revisions 2 to 201: parts up to 160, the rest in the tail."""
    model = Model()
    model.grow(random.Random(1), 200)
    store = open_store(tmp_path_factory.mktemp("history"))
    for after, through, seals in ((1, 50, True), (50, 160, True), (160, 201, False)):
        store.append(model.batch(after, through))
        if seals:
            store.seal()
    yield store, model
    store.close()


revisions = st.integers(1, 201)
few = settings(max_examples=25, deadline=None)


@few
@given(revision=revisions)
def test_kv_at_is_the_state_of_that_revision(filled: tuple[HistoryStore, Model], revision: int) -> None:
    store, model = filled
    assert pairs_of(store, "kv_at(?)", revision) == model.pairs(revision)


@few
@given(offset=st.integers(-5, 4_000))
def test_kv_as_of_is_the_state_of_the_newest_revision_of_then(
    filled: tuple[HistoryStore, Model], offset: int
) -> None:
    store, model = filled
    time_ms = 1_000 + offset
    newest = max([row.main for row in model.rows if row.time_ms <= time_ms], default=1)
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    assert pairs_of(store, "kv_as_of(?)", moment.isoformat()) == model.pairs(newest)


@few
@given(old=revisions, new=revisions)
def test_changes_are_the_keys_whose_state_differs(
    filled: tuple[HistoryStore, Model], old: int, new: int
) -> None:
    store, model = filled
    before, after = model.state(old), model.state(new)
    expected = set()
    for key in before.keys() | after.keys():
        was, is_now = before.get(key), after.get(key)
        if was != is_now:
            change = "added" if was is None else "removed" if is_now is None else "changed"
            values = [row.value if row else None for row in (was, is_now)]
            mains = [row.main if row else None for row in (was, is_now)]
            expected.add((key, text_of(key), change, *values, *(text_of(v) for v in values), *mains))
    assert set(rows_of(ask(store, "FROM changes(?, ?)", old, new))) == expected


@pytest.mark.parametrize("key", KEYS)
def test_history_of_a_key_is_all_its_rows_in_order(filled: tuple[HistoryStore, Model], key: bytes) -> None:
    store, model = filled
    expected = [row.main for row in model.rows if row.key == key]
    names: list[bytes | str] = [key] if text_of(key) is None else [key, key.decode()]
    for name in names:
        assert [
            row[0] for row in rows_of(ask(store, "SELECT mod_revision FROM history_of(?)", name))
        ] == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prefixes_count_keys_bytes_and_writes(filled: tuple[HistoryStore, Model], depth: int) -> None:
    store, model = filled
    expected: dict[str | None, list[int]] = {}
    for row in model.rows:
        expected.setdefault(prefix_of(row.key, depth), [0, 0, 0])[2] += 1
    for key, row in model.state(201).items():
        entry = expected[prefix_of(key, depth)]
        entry[0] += 1
        entry[1] += len(key) + len(row.value)
    found = rows_of(ask(store, f"FROM prefixes({depth})"))
    assert {row[0]: list(row[1:]) for row in found} == expected


def test_history_is_every_row_with_its_text_and_json_and_time(filled: tuple[HistoryStore, Model]) -> None:
    store, model = filled
    table = table_of(ask(store, "FROM history ORDER BY mod_revision, sub_revision")).to_pylist()
    assert len(table) == len(model.rows)
    for found, row in zip(table, model.rows, strict=True):
        assert (found["key_text"], found["value_text"]) == (text_of(row.key), text_of(row.value))
        assert (None if found["value_json"] is None else json.loads(found["value_json"])) == json_of(
            row.value
        )
        assert round(found["committed_at"].timestamp() * 1000) == row.time_ms
        assert found["author"] == row.author
        assert expected_rows([row])[0][:3] == (found["key"], found["value"], found["mod_revision"])


def test_previous_values_are_what_the_key_held_before(filled: tuple[HistoryStore, Model]) -> None:
    store, model = filled
    sql = """SELECT previous_value, previous_value_text, previous_mod_revision FROM history_with_previous
             ORDER BY mod_revision, sub_revision"""
    last: dict[bytes, Row] = {}
    expected: list[tuple[object, ...]] = []
    for row in model.rows:
        before = last.get(row.key)
        known = before is not None and not before.tombstone
        value = before.value if before is not None and known else None
        expected.append((value, text_of(value), before.main if before is not None and known else None))
        last[row.key] = row
    assert rows_of(ask(store, sql)) == expected


def test_kv_is_the_state_now(filled: tuple[HistoryStore, Model]) -> None:
    store, model = filled
    assert pairs_of(store, "kv") == model.pairs(201) == pairs_of(store, "kv_at(201)")


@pytest.mark.parametrize("revision", [0, -3, 202, 10**12])
def test_a_revision_that_is_not_there_is_refused_by_its_number(
    filled: tuple[HistoryStore, Model], revision: int
) -> None:
    store, _ = filled
    answer = ask(store, "FROM kv_at(?)", revision)
    assert (answer.error_code, str(revision) in answer.error_message) == ("retention", True)
    assert ask(store, f"FROM changes(5, {revision})").error_code == "retention"


def test_the_contract_is_what_show_tables_and_describe_tell(filled: tuple[HistoryStore, Model]) -> None:
    store, _ = filled
    assert {row[0] for row in rows_of(ask(store, "SHOW TABLES"))} == {*TABLES, *TABLE_FUNCTIONS}
    described = [row[:2] for row in rows_of(ask(store, "DESCRIBE history"))]
    assert described == [
        *(("key", "BLOB"), ("value", "BLOB"), ("key_text", "VARCHAR"), ("value_text", "VARCHAR")),
        *(("value_json", "JSON"), ("mod_revision", "BIGINT"), ("sub_revision", "INTEGER")),
        *(("create_revision", "BIGINT"), ("version", "BIGINT"), ("lease", "BIGINT"), ("op", "VARCHAR")),
        *(("committed_at", "TIMESTAMP WITH TIME ZONE"), ("author", "VARCHAR")),
    ]
    for table in TABLES:
        assert rows_of(ask(store, f"DESCRIBE {table}"))


def test_a_condition_on_the_keys_text_reads_only_a_few_rows(tmp_path: Path) -> None:
    model = Model()
    for number in range(20_000):
        model.change({b"/k/%05d" % number: b"v"})
    store = open_store(tmp_path)
    store.append(model.batch(1, model.revision))
    store.seal()
    for condition in ("key_text = '/k/00007'", "key_text LIKE '/k/0000%'", "key = '/k/00007'::BLOB"):
        plan = str(rows_of(ask(store, f"EXPLAIN ANALYZE SELECT value FROM kv_at(20000) WHERE {condition}")))
        scanned = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) rows", plan)]
        assert scanned, plan
        assert max(scanned) <= 8_192, plan
    store.close()
