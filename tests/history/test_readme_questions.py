"""The questions that the README shows, with the SQL that is written there and the output that it prints.

The data is a small story of jobs, at fixed times, so that the output is the same each time. A question is a
block of SQL and a block of text behind the mark `<!-- sql-question -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from etcray.cli.tables import render
from etcray_storage.history.store import HistoryStore
from tests.history.model import Model, ask, open_store, table_of

README: Final = Path(__file__).parents[2] / "README.md"
QUESTION: Final = re.compile(r"<!-- sql-question -->.*?```sql\n(.*?)```\s*```text\n(.*?)```", re.DOTALL)
QUESTIONS: Final = 5

STORY: Final[list[tuple[str, dict[str, str | None]]]] = [
    ("11:58:03", {"/jobs/17/state": '{"state": "queued"}', "/jobs/17/owner": "ann"}),
    ("11:58:20", {"/jobs/18/state": '{"state": "queued"}', "/jobs/18/owner": "bob"}),
    ("11:59:01", {"/workers/w1": '{"job": 17}', "/jobs/17/state": '{"state": "running", "on": "w1"}'}),
    ("11:59:30", {"/config/retries": "3"}),
    ("12:00:10", {"/workers/w2": '{"job": 18}', "/jobs/18/state": '{"state": "running", "on": "w2"}'}),
    ("12:01:45", {"/workers/w1": None, "/jobs/17/state": '{"state": "lost"}'}),
    ("12:01:52", {"/config/retries": "5"}),
    ("12:02:07", {"/jobs/17/state": '{"state": "running", "on": "w2"}'}),
    ("12:07:31", {"/jobs/18/state": None, "/jobs/18/owner": None, "/workers/w2": '{"job": 17}'}),
    ("12:09:12", {"/jobs/17/state": '{"state": "done", "on": "w2"}'}),
]
"""Of 2 March 2026: one transaction after the other, from revision 2 on; None deletes."""


class Question(NamedTuple):
    sql: str
    output: str


def questions(readme: str) -> list[Question]:
    return [Question(*found) for found in QUESTION.findall(readme)]


def output_of(store: HistoryStore, sql: str) -> str:
    lines = render(table_of(ask(store, sql)), width=0).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def told(directory: Path) -> HistoryStore:
    """A store that holds the story, half of it sealed."""
    model = Model()
    for time, changes in STORY:
        at = datetime.fromisoformat(f"2026-03-02 {time}").replace(tzinfo=UTC)
        encoded = {key.encode(): None if value is None else value.encode() for key, value in changes.items()}
        model.change(encoded, pause_ms=int(at.timestamp() * 1000) - model.time_ms)
    store = open_store(directory)
    store.append(model.batch(1, 6))
    store.seal()
    store.append(model.batch(6, model.revision))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HistoryStore]:
    store = told(tmp_path)
    yield store
    store.close()


def test_the_readme_shows_what_its_questions_print(store: HistoryStore) -> None:
    shown = questions(README.read_text())
    assert len(shown) == QUESTIONS
    for question in shown:
        assert output_of(store, question.sql) == question.output.rstrip(), question.sql
