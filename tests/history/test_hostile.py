"""Hostile statements, run for real: refused or stopped, and afterwards nothing is different."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray_storage.history.manifest import PARTS
from etcray_storage.history.messages import Answer, Query
from etcray_storage.history.pool import QueryPool
from etcray_storage.history.rows import empty_sides
from etcray_storage.history.store import HistoryStore
from tests.history.hostile import Hostile, corpus
from tests.history.model import Model, open_store, rows_of

CORPUS = corpus()
GROUPS = list(dict.fromkeys(hostile.group for hostile in CORPUS))
SECRET = "zanzibar-4711"
MILLISECONDS = 1_000
MEMORY_MIB = 128
GROWTH_MIB = 64


class Target:
    """A store with parts and a tail, a secret beside it, and a pool with small limits."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "secret.csv").write_text(f"a,b\n{SECRET},2\n")
        model = Model()
        for number in range(400):
            model.change({b"/a/%d" % (number % 40): b"%d" % number})
        self.store: HistoryStore = open_store(directory / "store")
        self.store.append(model.batch(1, 200))
        self.store.seal()
        self.store.append(model.batch(200, 401))
        self.pool = QueryPool(self.store.directory, workers=2, memory_mib=MEMORY_MIB)
        self._number = 0

    def ask(self, sql: str) -> Answer:
        """Again if no worker ran it, because the last ones are just being replaced."""
        while (answer := self._ask(sql)).error_code == "unavailable":
            assert "no worker has started" in answer.error_message, answer
        return answer

    def _ask(self, sql: str) -> Answer:
        self._number += 1
        snapshot = self.store.snapshot()
        try:
            query = Query(f"hostile-{self._number}", sql, timeout_ms=MILLISECONDS, rows_max=50_000)
            return self.pool.run(query, snapshot, empty_sides())
        finally:
            snapshot.release()

    def filled_in(self, sql: str) -> str:
        store = self.store.directory
        paths = {
            "@STORE": store,
            "@PART": next((store / PARTS).iterdir()),
            "@TAIL": store / self.store.manifest.tail_name,
            "@SECRET": self.directory / "secret.csv",
            "@OUT": self.directory / "out",
        }
        for name, path in paths.items():
            sql = sql.replace(name, str(path))
        return sql

    def files(self) -> dict[str, str]:
        """Every file and directory, with a digest of what is in it."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
            for path in sorted(self.directory.rglob("*"))
        }


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.pool.close()
    target.store.close()


def test_the_corpus_is_large_and_has_nothing_twice() -> None:
    assert len(CORPUS) >= 300
    assert len({hostile.sql for hostile in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_statements_are_refused_or_stopped_and_change_nothing(target: Target, group: str) -> None:
    secret_of_the_caller = [SECRET]
    before, resident = target.files(), resident_mib()
    wrong = []
    for hostile in (hostile for hostile in CORPUS if hostile.group == group):
        answer = target.ask(target.filled_in(hostile.sql))
        if problem := what_is_wrong(hostile, answer):
            wrong.append(
                f"{problem}: {hostile.sql[:150]!r} gave {answer.error_code} {answer.error_message!r}"
            )
    assert not wrong, "\n".join(wrong)
    assert target.files() == before
    assert resident_mib() < resident + GROWTH_MIB
    assert rows_of(target.ask("SELECT count(*), max(mod_revision) FROM history")) == [(400, 401)]
    assert rows_of(target.ask("SELECT count(*) FROM kv_at(30)")) == [(29,)]
    assert secret_of_the_caller == [SECRET]


def what_is_wrong(hostile: Hostile, answer: Answer) -> str:
    told = answer.error_message.encode() + answer.arrow
    if answer.error_code not in hostile.expected:
        return "another outcome"
    if SECRET.encode() in told or b"root:" in told:
        return "it tells a secret"
    if answer.error_code and not answer.error_message:
        return "it does not say why"
    return ""
