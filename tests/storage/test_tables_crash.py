"""Crash images: a copy of the directory at any instant opens as exactly one complete state."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from etcray_storage.engine import Engine, sync_directory, sync_file
from etcray_storage.errors import StorageFullError
from etcray_storage.mvcc import generations, install, schema
from etcray_storage.mvcc import tables as tables_module
from etcray_storage.mvcc.tables import Tables
from tests.storage.images import Images
from tests.storage.tables_model import Model, names, puts, read_history

CHILD = """
import sys
from pathlib import Path
from etcray_storage.mvcc.tables import Tables
from tests.storage.tables_model import puts
tables = Tables.open(Path(sys.argv[1]))
sizes = [1, 700, 3, 90, 2500]
while True:
    tables.stage(puts(tables.applied_index + 10, tables.revision + 1, sizes[tables.applied_index // 10 % 5]))
    tables.write()
    if tables.applied_index % 70 == 0:
        tables.maintain(force=True)
    print(tables.applied_index, tables.revision, flush=True)
"""


class TablesImages(Images):
    """Copies of the tables; the last one is taken by hand."""

    def before_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("execute", "insert", "append", "load_parquet", "write_parquet", "close"):
            self.before(monkeypatch, Engine, name)
        for owner in (generations, tables_module):
            self.before(monkeypatch, owner, "sync_directory")
        self.before(monkeypatch, generations, "sync_file")
        self.before(monkeypatch, generations, "_remove")
        self.before(monkeypatch, tables_module, "publish")
        self.before(monkeypatch, install, "publish")


def make_state(directory: Path, seed: int, flushes: int = 6) -> tuple[Tables, Model]:
    tables, model = Tables.open(directory), Model(seed)
    for _ in range(flushes):
        tables.stage(model.make_flush(4))
    model.compact()
    tables.stage(model.make_flush(0))
    tables.write()
    return tables, model


def test_crash_at_any_step_of_a_rewrite_leaves_the_same_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, model = make_state(tmp_path / "tables", 1)
    images = TablesImages(tmp_path / "tables", tmp_path)
    with monkeypatch.context() as patch:
        images.before_all(patch)
        tables.maintain(force=True)
    images.take()
    tables.close()
    assert len(images.taken) > 15
    generation = []
    for image in images.taken:
        recovered = Tables.open(image)
        model.check(recovered)
        generation += names(image)
        recovered.close()
    assert generation == sorted(generation)
    assert set(generation) == {"mvcc-00000001.duckdb", "mvcc-00000002.duckdb"}


def test_crash_at_any_step_of_an_install_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, newer = make_state(tmp_path / "leader", 2, flushes=9)
    exported = leader.export_snapshot(tmp_path / "snapshots")
    leader.close()
    tables, older = make_state(tmp_path / "tables", 3)
    images = TablesImages(tmp_path / "tables", tmp_path)
    with monkeypatch.context() as patch:
        images.before_all(patch)
        prepared = install.prepare_install(tmp_path / "tables", exported.path, exported.sha256)
        tables.close()
        installed = Tables.open_installed(tmp_path / "tables", prepared)
    images.take()
    newer.check(installed, rewritten=True)
    installed.close()
    assert len(images.taken) > 15
    seen = []
    for image in images.taken:
        recovered = Tables.open(image)
        expected = newer if recovered.applied_index == newer.index else older
        expected.check(recovered)
        assert len(names(image)) == 1
        seen.append(expected is newer)
        recovered.close()
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def test_crash_at_any_step_of_the_first_open_leaves_nothing_or_empty_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = TablesImages(tmp_path / "tables", tmp_path)
    (tmp_path / "tables").mkdir()
    with monkeypatch.context() as patch:
        images.before_all(patch)
        Tables.open(tmp_path / "tables").close()
    images.take()
    for image in images.taken:
        recovered = Tables.open(image)
        Model(0).check(recovered)
        assert names(image) == ["mvcc-00000001.duckdb"]
        recovered.close()


@pytest.mark.parametrize("lines", [1, 6, 17])
def test_killed_writer_leaves_exactly_the_rows_of_its_applied_index(tmp_path: Path, lines: int) -> None:
    """The child stops in the middle of whatever it does after the given number of flushes."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    with child.stdout:
        said = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
    child.wait()
    index, revision = map(int, said[-1].split())
    tables = Tables.open(tmp_path)
    assert (tables.applied_index, tables.revision) >= (index, revision)
    sizes = [1, 700, 3, 90, 2500]
    expected = 1 + sum(sizes[n % 5] for n in range(tables.applied_index // 10))
    assert tables.revision == expected
    assert [main for _, main, _ in read_history(tables)] == list(range(2, expected + 1))
    tables.close()


class TablesMachine(RuleBasedStateMachine):
    """Any order of flushes, compactions, rewrites, crashes and snapshots agrees with the model."""

    directories: ClassVar[pytest.TempPathFactory]

    def __init__(self) -> None:
        super().__init__()
        self.root = self.directories.mktemp("model")
        self.generation = 0

    @initialize(seed=st.integers(0, 2**32))
    def open_fresh(self, seed: int) -> None:
        self.tables = Tables.open(self.directory())
        self.model = Model(seed)
        self.written = self.model.copy()

    def directory(self) -> Path:
        return self.root / str(self.generation)

    @rule(sizes=st.lists(st.sampled_from([0, 1, 5, 120]), min_size=1, max_size=3))
    def flush(self, sizes: list[int]) -> None:
        for size in sizes:
            self.tables.stage(self.model.make_flush(size))
        self.tables.write()
        self.written = self.model.copy()

    @rule(size=st.sampled_from([0, 1, 5]))
    def stage_only(self, size: int) -> None:
        self.tables.stage(self.model.make_flush(size))

    @rule()
    def compact(self) -> None:
        self.model.compact()

    @rule()
    def rewrite(self) -> None:
        self.tables.maintain(force=True)
        self.written.check(self.tables, rewritten=True)

    @rule()
    def reopen(self) -> None:
        self.tables.close()
        self.tables = Tables.open(self.directory())
        self.model = self.written.copy()

    @rule()
    def crash(self) -> None:
        crashed = self.tables, self.directory()
        self.generation += 1
        shutil.copytree(crashed[1], self.directory())
        crashed[0].close()
        self.tables = Tables.open(self.directory())
        self.model = self.written.copy()

    @precondition(lambda self: self.written.index > 0)
    @rule()
    def move_by_snapshot(self) -> None:
        exported = self.tables.export_snapshot(self.root / "snapshots")
        self.tables.close()
        self.generation += 1
        self.directory().mkdir()
        self.tables = Tables.install_snapshot(self.directory(), exported.path, exported.sha256)
        self.model = self.written.copy()
        self.written.check(self.tables, rewritten=True)

    def teardown(self) -> None:
        if hasattr(self, "tables"):
            self.written.check(self.tables)
            self.tables.close()


def test_tables_agree_with_a_naive_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    TablesMachine.directories = tmp_path_factory
    run_state_machine_as_test(
        TablesMachine,
        settings=settings(
            max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_file_is_durable_before_it_gets_its_name_and_the_name_before_anybody_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    rename = Path.rename

    def noted_file(path: Path) -> None:
        calls.append("file")
        sync_file(path)

    def noted_directory(path: Path) -> None:
        calls.append("directory")
        sync_directory(path)

    def noted_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(generations, "sync_file", noted_file)
    monkeypatch.setattr(generations, "sync_directory", noted_directory)
    monkeypatch.setattr(Path, "rename", noted_rename)
    builder = generations.Builder(tmp_path, "new")
    generations.publish(builder.finish(), tmp_path)
    assert calls == ["file", "rename", "directory"]


def test_rows_and_their_applied_index_are_stored_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_no_space(*_: object) -> None:
        raise StorageFullError("no space left")

    tables = Tables.open(tmp_path)
    tables.stage(puts(10, 2, 5))
    with monkeypatch.context() as patched:
        patched.setattr(schema, "insert_meta", find_no_space)
        with pytest.raises(StorageFullError):
            tables.write()
    assert list(tables.load_history()) == []
    assert tables.applied_index == 0
    tables.write()
    assert len(list(tables.load_history())) == 1
    assert tables.applied_index == 10
    tables.close()
