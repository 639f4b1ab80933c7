"""Whose directory it is, and that one process has it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from etcray_storage.data_directory import DataDirectory
from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError
from etcray_storage.types import ClusterId, MemberId

CLUSTER, MEMBER = ClusterId(0xC1), MemberId(0xFFFF_FFFF_FFFF_FFFE)


def _open(path: Path, cluster: ClusterId = CLUSTER, member: MemberId = MEMBER) -> DataDirectory:
    return DataDirectory.open(path, cluster, member, "default", "node-1")


def _contents(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in path.iterdir()}


def test_creates_a_private_directory_and_counts_incarnations(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for incarnation in (1, 2, 3):
        directory = _open(path)
        assert directory.incarnation == incarnation
        assert directory.path == path
        directory.close()
        directory.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    stored = json.loads((path / "identity.json").read_text())
    assert stored["cluster_id"] == "c1"
    assert stored["member_id"] == "fffffffffffffffe"
    assert stored["incarnation"] == 3


def test_second_open_is_refused_and_names_the_process(tmp_path: Path) -> None:
    directory = _open(tmp_path)
    with pytest.raises(DataDirectoryInUseError, match=f"process {os.getpid()}"):
        _open(tmp_path)
    directory.close()
    _open(tmp_path).close()


def test_lock_ends_with_a_killed_process_and_holds_until_then(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from etcray_storage.data_directory import DataDirectory\n"
        f"d = DataDirectory.open(pathlib.Path(sys.argv[1]), {CLUSTER}, {MEMBER}, 'default', 'node-1')\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(DataDirectoryInUseError, match=f"process {process.pid}"):
            _open(tmp_path)
        process.kill()
        process.wait()
    directory = _open(tmp_path)
    assert directory.incarnation == 2
    directory.close()


def test_other_cluster_and_other_member_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    _open(tmp_path).close()
    before = _contents(tmp_path)
    with pytest.raises(DataDirectoryError, match=r"belongs to cluster c1 \(default\), not to c2"):
        _open(tmp_path, cluster=ClusterId(0xC2))
    with pytest.raises(DataDirectoryError, match=r"belongs to member fffffffffffffffe \(node-1\), not to 5"):
        _open(tmp_path, member=MemberId(5))
    assert _contents(tmp_path) == before


def test_newer_format_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    _open(tmp_path).close()
    (tmp_path / "identity.json").write_text('{"format": 2, "something": "else"}')
    before = _contents(tmp_path)
    with pytest.raises(DataDirectoryError, match="start it with a newer version"):
        _open(tmp_path)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", '{"format": 1}', '{"format": 1, "cluster_id": 7}'])
def test_damaged_identity_is_refused(tmp_path: Path, content: str) -> None:
    _open(tmp_path).close()
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(DataDirectoryError, match="is damaged"):
        _open(tmp_path)


def test_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataDirectoryError, match=r"holds holiday\.jpg: give an empty directory"):
        _open(tmp_path)
    assert _contents(tmp_path) == {"holiday.jpg": b""}


def test_crash_while_the_identity_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    _open(tmp_path).close()
    (tmp_path / "identity.json.tmp").write_text('{"form')
    directory = _open(tmp_path)
    assert directory.incarnation == 2
    directory.close()
    assert not (tmp_path / "identity.json.tmp").exists()


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for path in (file, file / "below"):
        with pytest.raises(DataDirectoryError, match="cannot be used"):
            _open(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataDirectoryError, match="cannot be used"):
            _open(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_member_that_promised_things_does_not_start_empty(tmp_path: Path) -> None:
    path = tmp_path / "lost"
    with pytest.raises(DataDirectoryError, match="has lost the data"):
        DataDirectory.open(path, CLUSTER, MEMBER, "default", "node-1", must_exist=True)
    assert not path.exists()


def test_that_everything_was_created_is_remembered(tmp_path: Path) -> None:
    directory = _open(tmp_path)
    assert not directory.identity.complete
    directory.mark_complete()
    directory.close()
    directory = _open(tmp_path)
    assert directory.identity.complete
    directory.close()
