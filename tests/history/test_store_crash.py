"""Crash images: a copy of the directory at any instant opens as a complete prefix, and can go on from it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from etcray_storage.engine import Engine
from etcray_storage.history import manifest, parts, store, tail
from etcray_storage.history.retention import Retention
from tests.history.model import Model, all_rows, expected_rows, open_store, pairs_of
from tests.storage.images import Images

CHILD = """
import random, sys
from pathlib import Path
from tests.history.model import Model, open_store
model = Model()
model.grow(random.Random(5), 4000)
store = open_store(Path(sys.argv[1]))
while True:
    store.append(model.batch(store.position, store.position + 9))
    if store.position % 4 == 0:
        store.seal()
    print(store.position, flush=True)
"""


class StoreImages(Images):
    """Copies of a history store."""

    def before_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("attach", "detach", "checkpoint", "write_parquet"):
            self.before(monkeypatch, Engine, name)
        for owner in (manifest, parts, store, tail):
            self.before(monkeypatch, owner, "sync_directory")
        for owner in (manifest, parts):
            self.before(monkeypatch, owner, "sync_file")
            self.before(monkeypatch, owner, "publish")
        self.before(monkeypatch, tail, "_remove")
        self.before(monkeypatch, store, "write_manifest")


def filled(directory: Path, seed: int) -> tuple[store.HistoryStore, Model]:
    """Two parts up to 20, and a tail up to 25."""
    model = Model()
    model.grow(random.Random(seed), 60)
    opened = open_store(directory)
    for after, through in ((1, 10), (10, 20)):
        opened.append(model.batch(after, through))
        opened.seal()
    opened.append(model.batch(20, 25))
    return opened, model


def test_sealing_loses_and_doubles_nothing_whenever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, model = filled(tmp_path / "live", 1)
    images = StoreImages(tmp_path / "live", tmp_path)
    with monkeypatch.context() as patched:
        images.before_all(patched)
        opened.seal()
    images.take()
    opened.close()
    assert len(images.taken) > 10
    expected = expected_rows([row for row in model.rows if row.main <= 25])
    for image in images.taken:
        again = open_store(image)
        assert (again.position, again.damage) == (25, []), image
        assert all_rows(again) == expected, image
        assert {path.name for path in image.glob("tail-*")} <= {
            again.manifest.tail_name,
            again.manifest.tail_name + ".wal",
        }
        again.close()


def test_forgetting_is_done_or_not_done_whenever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, model = filled(tmp_path / "live", 2)
    images = StoreImages(tmp_path / "live", tmp_path)
    opened.retention = Retention(revisions=1)
    with monkeypatch.context() as patched:
        images.before_all(patched)
        opened.forget()
    images.take()
    opened.close()
    firsts = set()
    for image in images.taken:
        again = open_store(image)
        assert (again.position, again.damage) == (25, []), image
        first = again.status().first_revision
        firsts.add(first)
        for revision in (first, 22, 25):
            assert pairs_of(again, f"kv_at({revision})") == model.pairs(revision), (image, revision)
        again.close()
    assert firsts == {1, 20}


def test_a_base_counts_wholly_or_not_at_all_whenever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, model = filled(tmp_path / "live", 3)
    images = StoreImages(tmp_path / "live", tmp_path)
    with monkeypatch.context() as patched:
        images.before_all(patched)
        base = opened.begin_base(40)
        base.add(model.compacted(40))
        base.finish()
    images.take()
    opened.close()
    positions = []
    for image in images.taken:
        again = open_store(image)
        positions.append(again.position)
        assert again.damage == []
        for revision in (10, 23, again.position):
            assert pairs_of(again, f"kv_at({revision})") == model.pairs(revision), (image, revision)
        again.close()
    assert positions == sorted(positions)
    assert set(positions) == {25, 40}


@pytest.mark.parametrize("lines", [3, 17, 40])
def test_a_killed_follower_has_all_that_it_said_it_had(tmp_path: Path, lines: int) -> None:
    model = Model()
    model.grow(random.Random(5), 4000)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = 0
    for _ in range(lines):
        said = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    again = open_store(tmp_path)
    assert again.position >= said
    assert again.damage == []
    assert all_rows(again) == expected_rows([row for row in model.rows if row.main <= again.position])
    again.close()
