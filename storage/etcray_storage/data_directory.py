"""The directory of one member: whose it is, and that only one process uses it.

Two files. `identity.json` names the cluster and the member, and counts how often the directory was
opened: the incarnation, which is in every message, so that peers tell a restarted member from what
is left of the process before. `LOCK` is locked for the life of the process; it is never renamed and
never removed, because a lock belongs to the file and not to its name. The lock is dropped by the
kernel when the process ends, however it ends. It is not to be trusted on a network file system.

A member whose disk was lost must not come back under its old id with an empty directory: it would
vote again in terms in which it had voted. That a directory is empty is not an error here (every
member starts so); once everything in it was created, `complete` says so, and whoever then finds the
log or the tables missing knows that they were lost.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from etcray_storage.engine import sync_directory
from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError
from etcray_storage.types import ClusterId, Incarnation, MemberId

FORMAT: Final = 1
_IDENTITY: Final = "identity.json"
_LOCK: Final = "LOCK"


class Identity(msgspec.Struct, frozen=True):
    """What `identity.json` holds. Ids are in hexadecimal there, as etcd's tools print them."""

    format: int
    cluster_id: str
    cluster_name: str
    member_id: str
    member_name: str
    incarnation: int
    complete: bool = False
    """Log and tables were created: from here on a missing one is lost, not yet to come."""


class _Format(msgspec.Struct, frozen=True):
    format: int


class DataDirectory:
    """A locked directory. Open it with `DataDirectory.open`; `close` gives up the lock."""

    def __init__(self, path: Path, lock: int, identity: Identity) -> None:
        self.path: Final = path
        self.identity = identity
        self._lock: int | None = lock

    @classmethod
    def open(
        cls,
        path: Path,
        cluster_id: ClusterId,
        member_id: MemberId,
        cluster_name: str,
        member_name: str,
        *,
        must_exist: bool = False,
    ) -> DataDirectory:
        """Create the directory, or check that it is this member's; lock it; count the incarnation.

        `must_exist`: the member has promised things from this directory before, so an empty one is
        refused, and not filled either.

        Raises DataDirectoryInUseError when another process has it, DataDirectoryError when it is of
        another cluster, another member or a newer version (nothing in it was changed then), or when
        it cannot be written. Names are not compared: ids say who a member is, and names may change."""
        if must_exist and not (path / _IDENTITY).exists():
            raise DataDirectoryError(
                f"{path} has lost the data of member {member_name}, and with it votes and acks that others "
                "rely on: restore the directory"
            )
        try:
            lock = _prepare(path)
        except OSError as e:
            raise DataDirectoryError(
                f"{path} cannot be used: {e.strerror}; give another directory, or make this one writable"
            ) from e
        try:
            _take(path, lock)
            known = _read_identity(path)
            if known is not None:
                _check_owner(path, known, cluster_id, member_id)
            incarnation = known.incarnation + 1 if known is not None else 1
            ids = (f"{cluster_id:x}", cluster_name, f"{member_id:x}", member_name)
            complete = known is not None and known.complete
            identity = Identity(FORMAT, *ids, incarnation, complete)
            _write_identity(path, identity)
            _note_process(lock)
        except OSError as e:
            os.close(lock)
            raise DataDirectoryError(f"{path} cannot be written: {e}; free space or make it writable") from e
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock, identity)

    @property
    def incarnation(self) -> Incarnation:
        return Incarnation(self.identity.incarnation)

    def mark_complete(self) -> None:
        """Everything the member needs was created: durable before it makes its first promise."""
        if not self.identity.complete:
            self.identity = msgspec.structs.replace(self.identity, complete=True)
            _write_identity(self.path, self.identity)

    def close(self) -> None:
        """Give up the lock. Only once nothing in the directory is open any more. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _prepare(path: Path) -> int:
    """Make the directory if it is missing, refuse it if it is somebody else's, open its lock file."""
    missing = []
    parent = path
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700)
        sync_directory(directory.parent)
    names = {item.name for item in path.iterdir()} - {_LOCK, _IDENTITY + ".tmp"}
    if names and _IDENTITY not in names:
        raise DataDirectoryError(
            f"{path} has no {_IDENTITY} but holds {', '.join(sorted(names)[:3])}: give an empty directory, "
            "or restore the file"
        )
    return os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise DataDirectoryInUseError(
            f"{path} is in use by process {holder}: stop that process first, or give another directory"
        ) from e


def _note_process(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _read_identity(path: Path) -> Identity | None:
    file = path / _IDENTITY
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        stored = msgspec.json.decode(content, type=_Format).format
        if stored > FORMAT:
            raise DataDirectoryError(
                f"{path} has format {stored}, this version reads {FORMAT}: start it with a newer version"
            )
        return msgspec.json.decode(content, type=Identity)
    except msgspec.MsgspecError as e:
        raise DataDirectoryError(
            f"{file} is damaged ({e}): replace this member (remove it from the cluster, then add it with an "
            "empty directory)"
        ) from e


def _check_owner(path: Path, known: Identity, cluster_id: ClusterId, member_id: MemberId) -> None:
    if int(known.cluster_id, 16) != cluster_id:
        raise DataDirectoryError(
            f"{path} belongs to cluster {known.cluster_id} ({known.cluster_name}), not to {cluster_id:x}: "
            "give this member a directory of its own"
        )
    if int(known.member_id, 16) != member_id:
        raise DataDirectoryError(
            f"{path} belongs to member {known.member_id} ({known.member_name}), not to {member_id:x}: "
            "give this member a directory of its own"
        )


def _write_identity(path: Path, identity: Identity) -> None:
    """Replace the file, all or nothing, durably."""
    temporary = path / (_IDENTITY + ".tmp")
    content = msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path / _IDENTITY)
    sync_directory(path)
