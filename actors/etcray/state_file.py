"""What the launcher keeps on disk: `<data-dir>/<cluster name>/cluster.json`, and a lock beside it.

The file is the cluster's birth certificate: its token, its founders, its members of today and where each
of them lives. It is written before the first member starts, atomically (write, sync, rename, sync the
directory), and again by the supervisor with each change of the membership. Every member's directory has
a copy: on a node where only members are, or where the file was lost, the newest copy serves in its place.
Without either a directory holds no cluster.

Paths are not believed: a data directory may have been moved, so the members' directories are derived
from where the file was found.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from etcray.errors import ClusterRunningError
from etcray.spec import ClusterSpec, derive_cluster_id
from etcray_storage.errors import DataDirectoryError

FORMAT: Final = 1
FILE_NAME: Final = "cluster.json"
LOCK_NAME: Final = "launch.lock"
ASIDE: Final = ".removed-"
"""In the name of a directory whose member was removed."""


class _Version(msgspec.Struct):
    """The one field that every format has."""

    format: int


class _Content(msgspec.Struct, kw_only=True):
    format: int
    cluster: ClusterSpec


def load(directory: Path, name: str) -> ClusterSpec | None:
    """The cluster that is stored in `directory` (the cluster's own, not the data directory above
    it), or None. Raises DataDirectoryError if what is there cannot be used as cluster `name`."""
    copies = [spec for path in _copies(directory) if (spec := _read_copy(path)) is not None]
    own = read(directory)
    if own is None and not copies:
        _refuse_orphans(directory)
        return None
    spec = max([spec for spec in (own, *copies) if spec is not None], key=lambda spec: spec.age)
    path = directory / FILE_NAME
    if spec.name != name:
        raise DataDirectoryError(
            f"{directory} holds cluster {spec.name!r}, not {name!r}. Directories cannot be renamed: "
            f"use --name {spec.name} with a directory of that name, or another --data-dir"
        )
    if spec.cluster_id != derive_cluster_id(spec.name, spec.token, spec.epoch):
        raise DataDirectoryError(
            f"{path} was changed: its cluster id does not follow from its token. Restore it from a copy"
        )
    return _at_home(spec, directory)


def read(directory: Path) -> ClusterSpec | None:
    """The spec in this very directory as it is, or None. Raises DataDirectoryError if it is damaged."""
    path = directory / FILE_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataDirectoryError(f"cannot read {path}: {error.strerror}. Check its owner and mode") from error
    try:
        version = msgspec.json.decode(raw, type=_Version).format
        if version > FORMAT:
            raise DataDirectoryError(
                f"{path} has format {version}, this etcray knows formats up to {FORMAT}: "
                "start it with the newer version that wrote it"
            )
        return msgspec.json.decode(raw, type=_Content).cluster
    except msgspec.DecodeError as error:
        raise DataDirectoryError(
            f"{path} is not a cluster file ({error}). Restore it from a copy, or use another --data-dir"
        ) from error


def _copies(directory: Path) -> list[Path]:
    """The members' directories that hold one. Those of removed members were set aside, and do not count."""
    return sorted(path.parent for path in directory.glob(f"*/{FILE_NAME}") if ASIDE not in path.parent.name)


def _read_copy(directory: Path) -> ClusterSpec | None:
    """A damaged copy is none: there are others."""
    try:
        return read(directory)
    except DataDirectoryError:
        return None


def set_aside(member_directory: Path) -> None:
    """Out of the way, but not gone: the directory of a member that was removed. Its place is free then."""
    if member_directory.is_dir():
        number = 1
        while (target := member_directory.with_name(f"{member_directory.name}{ASIDE}{number}")).exists():
            number += 1
        member_directory.rename(target)
        _sync_directory(member_directory.parent)


def save(directory: Path, spec: ClusterSpec) -> None:
    """Replace the file atomically and durably. Raises DataDirectoryError if it cannot be written."""
    path = directory / FILE_NAME
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    raw = msgspec.json.format(msgspec.json.encode(_Content(format=FORMAT, cluster=spec)), indent=2)
    try:
        with temporary.open("wb") as file:
            file.write(raw + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(directory)
    except OSError as error:
        raise DataDirectoryError(
            f"cannot write {path}: {error.strerror}. Check owner, mode and space"
        ) from error


def make_directory(directory: Path) -> None:
    """Create the cluster's directory, readable by its owner only, and see that it can be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirectoryError(
            f"cannot create {directory}: {error.strerror}. Choose another --data-dir"
        ) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DataDirectoryError(
            f"cannot write in {directory}. Change its owner or choose another --data-dir"
        )


class LaunchLock:
    """Held by the process that launched the cluster, for as long as it has it in its hands.

    The lock is the kernel's (flock), so it goes with the process; the file stays, always.
    """

    def __init__(self, directory: Path) -> None:
        """Raises ClusterRunningError if another process holds it."""
        path = directory / LOCK_NAME
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirectoryError(
                f"cannot open {path}: {error.strerror}. Check its owner and mode"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise ClusterRunningError(
                f"the cluster in {directory} is running already, launched by process {holder or 'unknown'}. "
                "`etcray status` shows it, `etcray down` stops it"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _at_home(spec: ClusterSpec, directory: Path) -> ClusterSpec:
    """The spec with the members' directories where the file was found. Members on other nodes have
    the same path there: the data directory is one path for the whole cluster."""
    members = tuple(
        msgspec.structs.replace(member, data_directory=str(directory / member.name))
        for member in spec.members
    )
    history = spec.history
    if history is not None:
        history = msgspec.structs.replace(history, directory=str(directory / Path(history.directory).name))
    return msgspec.structs.replace(spec, members=members, history=history)


def _refuse_orphans(directory: Path) -> None:
    """Members' data without any cluster file is never silently taken for a new cluster."""
    if not directory.is_dir():
        return
    orphans = sorted(p.name for p in directory.iterdir() if p.is_dir() and any(p.iterdir()))
    if orphans:
        raise DataDirectoryError(
            f"{directory} has data ({', '.join(orphans[:3])}) but no {FILE_NAME}. "
            "Restore that file from a copy, or choose another --data-dir"
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
