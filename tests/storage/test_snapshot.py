"""Snapshots: what was exported is what is installed, and nothing else is ever installed."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from pathlib import Path

import msgspec
import pytest

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageCorruptError
from etcray_storage.limits import SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES
from etcray_storage.mvcc import snapshot
from etcray_storage.mvcc.install import prepare_install
from etcray_storage.mvcc.snapshot import SnapshotFile, SnapshotReceiver, file_sha256
from etcray_storage.mvcc.tables import Tables
from tests.storage.tables_model import MEMBERSHIP, Model, flush, names, puts, read_history


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> SnapshotFile:
    directory = tmp_path_factory.mktemp("exported")
    tables = Tables.open(directory / "tables")
    tables.stage(Model(5).make_flush(60))
    tables.write()
    file = tables.export_snapshot(directory)
    tables.close()
    return file


def expect_refused(tmp_path: Path, path: Path, sha256: str, match: str) -> None:
    """The old state is untouched, goes on being used, and nothing is left behind."""
    tables = Tables.open(tmp_path / "tables")
    tables.stage(puts(tables.applied_index + 1, tables.revision + 1, 5))
    tables.write()
    before = read_history(tables)
    with pytest.raises(StorageCorruptError, match=match):
        prepare_install(tmp_path / "tables", path, sha256)
    assert names(tmp_path / "tables") == ["mvcc-00000001.duckdb"]
    assert read_history(tables) == before
    tables.close()


def test_export_names_what_it_holds(exported: SnapshotFile) -> None:
    assert exported.size_bytes == exported.path.stat().st_size
    assert exported.sha256 == hashlib.sha256(exported.path.read_bytes()).hexdigest()
    assert exported.meta.membership == MEMBERSHIP
    assert exported.meta.index > 0
    assert exported.path.parent.joinpath("tables").is_dir()
    assert sorted(p.name for p in exported.path.parent.iterdir()) == [exported.path.name, "tables"]


def test_install_replaces_the_state_for_good(tmp_path: Path, exported: SnapshotFile) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 500))
    tables.write()
    tables.close()
    model = Model(5)
    model.make_flush(60)
    Tables.install_snapshot(tmp_path, exported.path, exported.sha256).close()
    for _ in range(2):
        tables = Tables.open(tmp_path)
        model.check(tables, rewritten=True)
        assert tables.membership == MEMBERSHIP
        assert names(tmp_path) == ["mvcc-00000002.duckdb"]
        tables.close()


def test_installed_tables_go_on(tmp_path: Path, exported: SnapshotFile) -> None:
    tables = Tables.install_snapshot(tmp_path, exported.path, exported.sha256)
    model = Model(5)
    model.make_flush(60)
    for _ in range(3):
        model.compact()
        tables.stage(model.make_flush(5))
        tables.write()
        tables.maintain(force=True)
    model.check(tables, rewritten=True)
    tables.close()


def test_install_replaces_tables_that_cannot_be_opened(tmp_path: Path, exported: SnapshotFile) -> None:
    (tmp_path / "mvcc-00000007.duckdb").write_bytes(b"damaged")
    tables = Tables.install_snapshot(tmp_path, exported.path, exported.sha256)
    assert tables.applied_index == exported.meta.index
    assert names(tmp_path) == ["mvcc-00000008.duckdb"]
    tables.close()


def test_export_is_consistent_while_writes_go_on(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path / "tables")
    tables.stage(puts(1, 2, 20_000))
    tables.write()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            tables.stage(puts(tables.applied_index + 1, tables.revision + 1, 10))
            tables.write()

    writer = threading.Thread(target=write)
    writer.start()
    files = [tables.export_snapshot(tmp_path / "snapshots") for _ in range(3)]
    stop.set()
    writer.join()
    tables.close()
    assert files[0].meta.index < files[2].meta.index
    for file in files:
        installed = Tables.install_snapshot(tmp_path / "tables", file.path, file.sha256)
        assert installed.applied_index == file.meta.index
        assert installed.revision == 20_001 + 10 * (file.meta.index - 1)
        assert [main for _, main, _ in read_history(installed)] == list(range(2, installed.revision + 1))
        installed.close()


def test_export_leaves_out_what_is_compacted(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path / "tables")
    tables.stage(puts(1, 2, 1000))
    tables.stage(flush(2, revision=1001, compact_revision=1001))
    tables.write()
    file = tables.export_snapshot(tmp_path)
    tables.close()
    tables = Tables.install_snapshot(tmp_path / "tables", file.path, file.sha256)
    assert len(read_history(tables)) == 10
    tables.close()


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_flipped_bit_anywhere_is_refused(tmp_path: Path, exported: SnapshotFile, part: float) -> None:
    content = bytearray(exported.path.read_bytes())
    content[int(len(content) * part)] ^= 0x10
    (tmp_path / "damaged.tar").write_bytes(content)
    expect_refused(tmp_path, tmp_path / "damaged.tar", exported.sha256, "has SHA-256")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_truncated_snapshot_is_refused_even_with_its_own_hash(
    tmp_path: Path, exported: SnapshotFile, kept: float
) -> None:
    content = exported.path.read_bytes().rstrip(b"\x00")
    path = tmp_path / "short.tar"
    path.write_bytes(content[: int(len(content) * kept)])
    expect_refused(tmp_path, path, exported.sha256, "has SHA-256")
    expect_refused(tmp_path, path, file_sha256(path), "not a snapshot|cannot be loaded")


def test_missing_snapshot_is_refused(tmp_path: Path) -> None:
    expect_refused(tmp_path, tmp_path / "none.tar", "0" * 64, "does not exist")


def repack(exported: SnapshotFile, path: Path, **changes: bytes) -> str:
    """The same snapshot with some members' content replaced, and an honest hash."""
    with tarfile.open(exported.path) as source, tarfile.open(path, "w") as target:
        for information in source:
            file = source.extractfile(information)
            assert file is not None
            content = changes.get(information.name.split(".")[0], file.read())
            information.size = len(content)
            target.addfile(information, io.BytesIO(content))
    return file_sha256(path)


def read_manifest(exported: SnapshotFile) -> dict[str, object]:
    with tarfile.open(exported.path) as tar:
        file = tar.extractfile(snapshot.MANIFEST)
        assert file is not None
        decoded: dict[str, object] = msgspec.json.decode(file.read())
        return decoded


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "format 'other'"),
        ({"format_version": 3}, "version 3"),
        ({"format_version": 0}, "version 0"),
        ({"revisions_count": 1}, "its manifest"),
        ({"items_count": 99}, "its manifest"),
        ({"revision": 1}, "up to 1 and"),
        ({"index": "one"}, "not a snapshot"),
        ({"unknown": 1}, "not a snapshot"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, exported: SnapshotFile, change: dict[str, object], match: str
) -> None:
    manifest = msgspec.json.encode({**read_manifest(exported), **change})
    sha256 = repack(exported, tmp_path / "foreign.tar", manifest=manifest)
    expect_refused(tmp_path, tmp_path / "foreign.tar", sha256, match)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet file at all" * 100])
def test_foreign_rows_are_refused(tmp_path: Path, exported: SnapshotFile, content: bytes) -> None:
    sha256 = repack(exported, tmp_path / "foreign.tar", revisions=content)
    expect_refused(tmp_path, tmp_path / "foreign.tar", sha256, "cannot be loaded")


def test_rows_of_another_shape_are_refused(tmp_path: Path, exported: SnapshotFile) -> None:
    engine = Engine.open(None)
    engine.write_parquet("SELECT 1 AS main, 2 AS sub", tmp_path / "other.parquet", 2048)
    engine.close()
    sha256 = repack(exported, tmp_path / "foreign.tar", revisions=(tmp_path / "other.parquet").read_bytes())
    expect_refused(tmp_path, tmp_path / "foreign.tar", sha256, "cannot be loaded")


# --- receiving ------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_receiver_puts_chunks_together_in_order_or_repeated(tmp_path: Path) -> None:
    receiver = SnapshotReceiver(tmp_path / "incoming")
    wanted = [
        receiver.accept(SHA256, len(CONTENT), o, CONTENT[o : o + 4000]) for o in (0, 0, 4000, 2000, 8000)
    ]
    assert wanted == [4000, 4000, 8000, 8000, len(CONTENT)]
    assert receiver.finish(SHA256, len(CONTENT)).read_bytes() == CONTENT
    receiver.discard()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_receiver_asks_for_what_is_missing_after_a_gap_or_a_restart(tmp_path: Path) -> None:
    assert SnapshotReceiver(tmp_path).accept(SHA256, len(CONTENT), 4000, CONTENT[4000:8000]) == 0
    assert SnapshotReceiver(tmp_path).accept(SHA256, len(CONTENT), 0, CONTENT[:5000]) == 5000
    receiver = SnapshotReceiver(tmp_path)
    assert receiver.accept(SHA256, len(CONTENT), 8000, CONTENT[8000:]) == 5000
    assert receiver.accept(SHA256, len(CONTENT), 4000, CONTENT[4000:]) == len(CONTENT)
    assert receiver.finish(SHA256, len(CONTENT)).read_bytes() == CONTENT


def test_receiver_forgets_one_snapshot_for_another(tmp_path: Path) -> None:
    receiver = SnapshotReceiver(tmp_path)
    receiver.accept("0" * 64, 100, 0, b"other")
    receiver.accept(SHA256, len(CONTENT), 0, CONTENT)
    assert [p.name for p in tmp_path.iterdir()] == [f"incoming-{SHA256}.part"]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"\x00", CONTENT[:-1]])
def test_receiver_forgets_a_damaged_or_short_snapshot(tmp_path: Path, content: bytes) -> None:
    receiver = SnapshotReceiver(tmp_path)
    receiver.accept(SHA256, len(CONTENT), 0, content)
    with pytest.raises(StorageCorruptError, match="damaged on its way"):
        receiver.finish(SHA256, len(CONTENT))
    assert receiver.accept(SHA256, len(CONTENT), 100, b"x") == 0


@pytest.mark.parametrize(
    ("sha256", "total", "offset", "size"),
    [
        ("../../escape", 10, 0, 1),
        (SHA256.upper(), 10, 0, 1),
        (SHA256, 0, 0, 0),
        (SHA256, -1, 0, 0),
        (SHA256, SNAPSHOT_BYTES_MAX + 1, 0, 1),
        (SHA256, 10, -1, 1),
        (SHA256, 10, 10, 1),
        (SHA256, 10 * SNAPSHOT_CHUNK_BYTES, 0, SNAPSHOT_CHUNK_BYTES + 1),
    ],
)
def test_receiver_refuses_what_no_honest_sender_sends(
    tmp_path: Path, sha256: str, total: int, offset: int, size: int
) -> None:
    with pytest.raises(StorageCorruptError, match="is refused"):
        SnapshotReceiver(tmp_path).accept(sha256, total, offset, bytes(size))
    assert list(tmp_path.iterdir()) == []


def test_exported_snapshot_travels_in_chunks_and_installs(tmp_path: Path, exported: SnapshotFile) -> None:
    content, receiver = exported.path.read_bytes(), SnapshotReceiver(tmp_path / "incoming")
    offset = 0
    while offset < exported.size_bytes:
        offset = receiver.accept(exported.sha256, len(content), offset, content[offset : offset + 10_000])
    path = receiver.finish(exported.sha256, exported.size_bytes)
    tables = Tables.install_snapshot(make(tmp_path / "tables"), path, exported.sha256)
    receiver.discard()
    assert tables.applied_index == exported.meta.index
    tables.close()
    shutil.rmtree(tmp_path / "incoming")


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory
