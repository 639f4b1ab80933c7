"""Room on a member's disk: how much there is, whether that is too little, and a reserve for the worst.

A full disk is announced before it happens (`RoomWatch`): the alarm that refuses puts has to be written
to every member's log, and that takes room, too. If the disk fills up faster than that, or by somebody
else's hand, the reserve (`Ballast`) is given up, so that the log can go on for the few records that
the alarm needs. Without a reserve a member that meets a full disk can only end its process.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from etcray_storage.limits import BALLAST_BYTES, DISK_FREE_ENOUGH_BYTES, DISK_FREE_LOW_BYTES

BALLAST: Final = "BALLAST"
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when there is no room: none on the disk, none in the owner's quota."""


def free_bytes(path: Path) -> int:
    """What this process may still write on the filesystem of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class RoomWatch:
    """Whether room is low. Two marks, so that it does not change with every write around one."""

    def __init__(self) -> None:
        self.is_low = False
        self.free_bytes = 0
        """As of the last look."""

    def look(self, free: int) -> bool:
        """Take note of a measurement; the new state."""
        self.free_bytes = free
        self.is_low = free < (DISK_FREE_ENOUGH_BYTES if self.is_low else DISK_FREE_LOW_BYTES)
        return self.is_low


class Ballast:
    """The reserve: a file whose blocks are allocated and hold nothing. Thread-safe."""

    def __init__(self, directory: Path, size_bytes: int = BALLAST_BYTES) -> None:
        self._path = directory / BALLAST
        self._size_bytes = size_bytes

    def make(self) -> bool:
        """Allocate it, if it is not there. False if there is no room, or the filesystem cannot
        allocate; any other failure raises OSError."""
        if self._path.exists():
            return True
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError as e:
            self._path.unlink(missing_ok=True)
            if e.errno in FULL or e.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        finally:
            os.close(descriptor)
        return True

    def release(self) -> bool:
        """Give the room back to the disk. False if there was no reserve to give up."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
