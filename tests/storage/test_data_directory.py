"""Whose directory it is, and that one process has it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from etcray_storage.data_directory import DataDirectory
from etcray_storage.disk_space import Ballast
from etcray_storage.errors import (
    DataDirectoryError,
    DataDirectoryInUseError,
    QuarantinedError,
    StorageFatalError,
)
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
    with pytest.raises(QuarantinedError, match="is damaged"):
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
    with pytest.raises(QuarantinedError, match="has lost the data"):
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


def test_quarantine_outlasts_every_restart_and_says_why(tmp_path: Path) -> None:
    directory = _open(tmp_path)
    assert "two logs" in str(directory.quarantine("it had two logs"))
    directory.close()
    before = _contents(tmp_path)
    for _ in range(2):
        with pytest.raises(QuarantinedError, match=r"in quarantine \(it had two logs\): replace this member"):
            _open(tmp_path)
    assert _contents(tmp_path) == before


def test_the_holder_notices_that_its_directory_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "member"
    directory = _open(path)
    directory.check_owned()
    path.rename(tmp_path / "moved")
    with pytest.raises(StorageFatalError, match="was moved or removed"):
        directory.check_owned()
    successor = _open(path)
    with pytest.raises(StorageFatalError, match="was replaced by another directory"):
        directory.check_owned()
    successor.check_owned()
    successor.close()
    directory.close()


def test_on_a_full_disk_the_reserve_is_given_up_for_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _open(tmp_path).close()
    ballast = Ballast(tmp_path, 4096)
    assert ballast.make()

    def sync(_descriptor: int) -> None:
        if (tmp_path / "BALLAST").exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    directory = _open(tmp_path)
    assert directory.incarnation == 2
    directory.close()
    assert not ballast.release()  # it is gone


def test_the_reserve_takes_its_room_and_gives_it_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, 1 << 20)
    assert ballast.make()
    assert ballast.make()
    assert (tmp_path / "BALLAST").stat().st_blocks * 512 >= 1 << 20
    assert ballast.release()
    assert not ballast.release()
    assert not (tmp_path / "BALLAST").exists()
