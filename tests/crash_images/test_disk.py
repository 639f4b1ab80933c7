"""The model of a disk forgets what was not synced, and nothing else."""

from __future__ import annotations

import os
import random
from typing import Any

from tests.crash_images.disk import Disk, Image
from tests.crash_images.journal import Call, Operation

ROOT = "/root"


def call(operation: Operation, descriptor: int = -1, path: str = "", **more: Any) -> Call:
    fields: dict[str, Any] = {"flags": 0, "offset": 0, "length": 0, "other": "", "data": b"", **more}
    return Call(operation=operation, descriptor=descriptor, path=path, **fields)


def created(name: str, descriptor: int) -> Call:
    return call(Operation.OPEN, descriptor, f"{ROOT}/{name}", flags=os.O_CREAT)


def wrote(descriptor: int, offset: int, data: bytes) -> Call:
    return call(Operation.WRITE, descriptor, offset=offset, data=data, length=len(data))


def synced(descriptor: int) -> Call:
    return call(Operation.SYNC, descriptor)


def disk_after(*calls: Call) -> Disk:
    disk = Disk(ROOT)
    disk.perform(call(Operation.OPEN, 3, ROOT))
    for one in calls:
        disk.perform(one)
    return disk


def images(disk: Disk, kind: str) -> list[dict[str, bytes | None]]:
    return [plain(image) for found, image in disk.images(random.Random(1)) if found == kind]


def plain(image: Image) -> dict[str, bytes | None]:
    return {path: content.data if content is not None else None for path, content in image.items()}


def test_a_synced_file_without_a_synced_name_may_be_missing() -> None:
    disk = disk_after(created("a", 4), wrote(4, 0, b"one"), synced(4))
    assert images(disk, "everything") == [{"a": b"one"}]
    assert images(disk, "only what was synced") == [{}]
    disk.perform(synced(3))
    assert images(disk, "only what was synced") == [{"a": b"one"}]


def test_a_write_after_the_sync_may_be_missing_torn_or_zeros() -> None:
    disk = disk_after(created("a", 4), synced(3), wrote(4, 0, b"one"), synced(4), wrote(4, 3, b"x" * 1024))
    assert images(disk, "only what was synced") == [{"a": b"one"}]
    assert images(disk, "one write lost") == [{"a": b"one"}]
    assert images(disk, "zeros") == [{"a": b"one" + bytes(1024)}]
    first, second = images(disk, "torn")
    assert first["a"] in (b"one" + b"x" * 509, b"one" + b"x" * 1021)
    assert isinstance(second["a"], bytes)
    assert second["a"].startswith(b"one\0")
    assert second["a"].endswith(b"x")


def test_one_of_several_unsynced_writes_may_be_missing() -> None:
    disk = disk_after(created("a", 4), synced(3), wrote(4, 0, b"11"), wrote(4, 2, b"22"))
    assert {image["a"] for image in images(disk, "one write lost")} == {b"\0\x0022", b"11"}


def test_a_rename_replaces_and_may_be_undone_until_its_directory_is_synced() -> None:
    disk = disk_after(
        created("a", 4),
        wrote(4, 0, b"old"),
        synced(4),
        created("b", 5),
        wrote(5, 0, b"new"),
        synced(5),
        synced(3),
        call(Operation.RENAME, path=f"{ROOT}/b", other=f"{ROOT}/a"),
    )
    assert images(disk, "everything") == [{"a": b"new"}]
    assert images(disk, "no unsynced name") == [{"a": b"old", "b": b"new"}]


def test_truncation_removed_files_and_directories_follow_the_same_rules() -> None:
    disk = disk_after(
        call(Operation.MKDIR, path=f"{ROOT}/d"),
        created("d/a", 4),
        wrote(4, 0, b"12345"),
        call(Operation.OPEN, 5, f"{ROOT}/d"),
        synced(4),
        synced(5),
        synced(3),
        call(Operation.TRUNCATE, 4, length=2),
    )
    assert images(disk, "everything") == [{"d": None, "d/a": b"12"}]
    assert images(disk, "only what was synced") == [{"d": None, "d/a": b"12345"}]
    disk.perform(call(Operation.UNLINK, path=f"{ROOT}/d/a"))
    assert images(disk, "everything") == [{"d": None}]
    assert images(disk, "no unsynced name") == [{"d": None, "d/a": b"12"}]
