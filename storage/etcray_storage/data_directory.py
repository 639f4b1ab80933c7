"""The directory of one member: whose it is, that only one process uses it, and whether it may be used.

Three files. `identity.json` names the cluster and the member, and counts how often the directory was
opened: the incarnation, which is in every message, so that peers tell a restarted member from what
is left of the process before. `LOCK` is locked for the life of the process; it is never renamed and
never removed, because a lock belongs to the file and not to its name. The lock is dropped by the
kernel when the process ends, however it ends. It is not to be trusted on a network file system.
`QUARANTINE`, if it is there, says why nobody may ever vote from this directory again.

Zombies, as two stories. A stopped process (SIGSTOP) still holds the lock:

1. The process is stopped. Somebody starts another one on the directory: it is refused, because the lock
   is held. So whoever wants to go on here must first end the stopped process; a signal that ends it
   (SIGKILL) works on a stopped process as well.
2. If nobody can end it, the member is replaced by one with another id and directory. The old process may
   wake up and write to its own directory as it likes: nobody else reads it, and its id was removed.

A lock is on a file, not on a name. Somebody moves the directory away, or restores another one in its
place, under a running process: both could be locked at once. So the holder looks now and then whether the
lock file under its path is still the one that it holds (`check_owned`), and ends if it is not.

A member whose disk was lost must not come back under its old id with an empty directory: it would
vote again in terms in which it had voted. That a directory is empty is not an error here (every
member starts so); once everything in it was created, `complete` says so, and whoever then finds the
log or the tables missing knows that they were lost.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from etcray_storage.disk_space import FULL, Ballast
from etcray_storage.engine import sync_directory
from etcray_storage.errors import (
    DataDirectoryError,
    DataDirectoryInUseError,
    QuarantinedError,
    StorageFatalError,
)
from etcray_storage.types import ClusterId, Incarnation, MemberId

FORMAT: Final = 1
_IDENTITY: Final = "identity.json"
_LOCK: Final = "LOCK"
_QUARANTINE: Final = "QUARANTINE"
_HOW_TO_REPLACE: Final = "replace this member by one with a new id and an empty directory"


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
        it cannot be written; QuarantinedError when it lost what the member had promised, now or at an
        earlier start. Names are not compared: ids say who a member is, and names may change."""
        if must_exist and not (path / _IDENTITY).exists():
            raise QuarantinedError(
                f"{path} has lost the data of member {member_name}, and with it votes and acks that others "
                f"rely on: {_HOW_TO_REPLACE}"
            )
        _refuse_quarantined(path)
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
            _refuse_quarantined(path)  # written by whoever held the lock before
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
        """Everything the member needs was created: durable before it makes its first promise. Raises
        DataDirectoryError if that cannot be written down."""
        if not self.identity.complete:
            identity = msgspec.structs.replace(self.identity, complete=True)
            try:
                _write_identity(self.path, identity)
            except OSError as e:
                raise DataDirectoryError(
                    f"{self.path} cannot be written: {e}; free space or make it writable"
                ) from e
            self.identity = identity

    def move_to_cluster(self, cluster_id: ClusterId) -> None:
        """From here on this is a member of another cluster, durably. Only for a recovery from a lost
        majority: whoever knows the old cluster's id is not heard any more, and does not hear."""
        self.identity = msgspec.structs.replace(self.identity, cluster_id=f"{cluster_id:x}")
        _write_identity(self.path, self.identity)

    def check_owned(self) -> None:
        """Two system calls, a few microseconds. Raises StorageFatalError if the directory under this
        path is not the one that was locked: whatever is there now belongs to somebody else."""
        assert self._lock is not None, f"{self.path} is closed"
        held = os.fstat(self._lock)
        try:
            there = os.stat(self.path / _LOCK)
        except OSError as e:
            raise StorageFatalError(
                f"{self.path} was moved or removed under a running member ({e.strerror}): restore it, then "
                "start the member again"
            ) from e
        if (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):
            raise StorageFatalError(
                f"{self.path} was replaced by another directory under a running member: restore the one of "
                f"incarnation {self.incarnation}, then start the member again"
            )

    def quarantine(self, reason: str) -> QuarantinedError:
        """Note durably that nobody may vote from this directory again; the error to raise. If not even
        this can be written, what is wrong will be found at the next start, as it was now."""
        with suppress(OSError):
            _write_durably(self.path, _QUARANTINE, reason.encode() + b"\n")
        return _quarantined(self.path, reason)

    def close(self) -> None:
        """Give up the lock. Only once nothing in the directory is open any more. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_identity(path: Path) -> Identity | None:
    """Whose directory this is, without opening it; None if it is nobody's yet. Raises DataDirectoryError,
    QuarantinedError."""
    _refuse_quarantined(path)
    return _read_identity(path)


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
        raise QuarantinedError(f"{file} is damaged ({e}): {_HOW_TO_REPLACE}") from e


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


def _refuse_quarantined(path: Path) -> None:
    try:
        reason = (path / _QUARANTINE).read_bytes().decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return
    raise _quarantined(path, reason)


def _quarantined(path: Path, reason: str) -> QuarantinedError:
    return QuarantinedError(f"{path} is in quarantine ({reason}): {_HOW_TO_REPLACE}")


def _write_identity(path: Path, identity: Identity) -> None:
    _write_durably(path, _IDENTITY, msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")


def _write_durably(path: Path, name: str, content: bytes) -> None:
    """Replace a file, all or nothing, durably. On a full disk the reserve is given up for it."""
    try:
        _replace_file(path, name, content)
    except OSError as e:
        if e.errno not in FULL or not Ballast(path).release():
            raise
        _replace_file(path, name, content)


def _replace_file(path: Path, name: str, content: bytes) -> None:
    temporary = path / (name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path / name)
    sync_directory(path)
