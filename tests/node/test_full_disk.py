"""A disk that is really full, under a real process: a small filesystem in memory."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray.node import api
from etcray.node.peers import PeerUnreachableError
from etcray.spec import Timing
from etcray_storage.commands import Batch, encode_batch
from etcray_storage.disk_space import free_bytes
from etcray_storage.errors import NO_SPACE
from etcray_storage.limits import DISK_FREE_LOW_BYTES, MIB
from etcray_storage.proto.rpc_pb2 import NOSPACE
from tests.node.local_cluster import make_spec, put_batch, range_request, value_of, wait_for
from tests.node.member_process import MemberProcess

SESSION = 51


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("only root may mount a filesystem")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Somebody else fills the disk, all at once, and whatever becomes free in between."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while free_bytes(disk) > leave:
            file.write(bytes(min(MIB, free_bytes(disk) - leave)))


class Client:
    """Puts until something other than success comes back, and remembers what was answered."""

    def __init__(self, process: MemberProcess) -> None:
        self.process = process
        self.answered: dict[bytes, bytes] = {}
        self._sequence = 0
        wait_for(self._leads, "a leader")
        process.propose(encode_batch(Batch(SESSION, 0, 0, b"", [])))

    def _leads(self) -> bool | None:
        return self.process.status().role == "leader" or None

    def put(self) -> int:
        """The number of the error, or 0. Raises PeerUnreachableError if the process ended."""
        self._sequence += 1
        value = random.Random(self._sequence).randbytes(200_000)
        key = b"key%d" % (self._sequence % 20)
        reply = self.process.propose(encode_batch(put_batch(SESSION, self._sequence, {key: value})))
        assert reply.answer is not None
        if reply.answer.errors == [0]:
            self.answered[key] = value
        return reply.answer.errors[0]


def get(process: MemberProcess, key: bytes) -> bytes | None:
    """Not linearizable: it also works at a member that cannot write anything any more."""
    return value_of(api.decode_read_reply(process.call("read", range_request(key, linearizable=False))))


def alarms(process: MemberProcess) -> tuple[int, ...]:
    return tuple(kind for _, kind in process.status().alarms)


def test_a_disk_that_fills_up_stops_puts_in_time_and_room_brings_them_back(disk: Path) -> None:
    spec = make_spec(disk, 1, Timing(heartbeat_ms=50, election_ms=300))
    with MemberProcess(spec, disk, "m1") as process:
        assert process.opened() is None
        client = Client(process)
        assert client.put() == 0
        fill(disk, leave=DISK_FREE_LOW_BYTES - MIB)
        wait_for(lambda: alarms(process) == (NOSPACE,) or None, "the alarm")
        assert client.put() == NO_SPACE.number
        assert {key: get(process, key) for key in client.answered} == client.answered
        (disk / "filler").unlink()
        wait_for(lambda: alarms(process) == () or None, "the end of the alarm")
        assert client.put() == 0


def test_a_disk_that_is_full_at_once_loses_nothing_that_was_answered(disk: Path) -> None:
    spec = make_spec(disk, 1, Timing(heartbeat_ms=50, election_ms=300))
    with MemberProcess(spec, disk, "m1") as process:
        assert process.opened() is None
        client = Client(process)
        for _ in range(10):
            assert client.put() == 0
        wait_for(lambda: (disk / "m1" / "BALLAST").exists() or None, "the reserve")
        fill(disk, leave=0)
        error = 0
        try:
            while error == 0:
                error = client.put()
        except PeerUnreachableError:
            error = -1
        if error != -1:
            assert error == NO_SPACE.number
            assert {key: get(process, key) for key in client.answered} == client.answered
    # The reserve is gone, and the disk is as full as before. A start may be refused now, for want of
    # room, but not for want of data; and one that is not refused reads what it knows to be committed.
    with MemberProcess(spec, disk, "m1") as process:
        refused = process.opened()
        if refused is None:
            assert any(get(process, key) is not None for key in client.answered)
        else:
            assert refused.error in ("DataDirectoryError", "StorageFullError")
    (disk / "filler").unlink()
    with MemberProcess(spec, disk, "m1") as process:
        assert process.opened() is None
        wait_for(lambda: process.status().role == "leader" or None, "a leader")
        wait_for(lambda: process.status().ready or None, "everything applied")
        assert {key: get(process, key) for key in client.answered} == client.answered
        wait_for(lambda: alarms(process) == () or None, "the end of the alarm")
