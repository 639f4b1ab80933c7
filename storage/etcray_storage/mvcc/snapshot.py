"""The file that brings a lagging member up to date: its format, and how it is put together again.

A snapshot is a tar file of `manifest.json`, `revisions.parquet` and `items.parquet`. It is logical: a
DuckDB file can only be read by some versions of DuckDB, and members are upgraded one by one. It is
named by the SHA-256 of all its bytes; nothing in it is looked at before that is verified.

Rules for this file: it knows files and bytes, not tables. What is in the parquet files is decided by
`tables` (export) and `install`.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from etcray_storage.engine import sync_directory, sync_file, translated
from etcray_storage.errors import StorageCorruptError
from etcray_storage.limits import MIB, SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES
from etcray_storage.types import Membership, SnapshotMeta

FORMAT: Final = "etcray-snapshot"
FORMAT_VERSION: Final = 2
"""2: `items` may hold members and the state hash. Version 1 is read as it is."""

MANIFEST: Final = "manifest.json"
REVISIONS: Final = "revisions.parquet"
ITEMS: Final = "items.parquet"

_MANIFEST_BYTES_MAX: Final = 1 * MIB
_READ_BYTES: Final = 1 * MIB
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a snapshot says of itself. The counts let an install notice missing rows."""

    format: str
    format_version: int
    index: int
    term: int
    membership: Membership
    revision: int
    compact_revision: int
    revisions_count: int
    items_count: int


class SnapshotFile(NamedTuple):
    """A complete, synced snapshot on this machine's disk."""

    path: Path
    size_bytes: int
    sha256: str
    """Lower-case hex."""
    meta: SnapshotMeta


def pack(path: Path, manifest: Manifest, directory: Path) -> tuple[int, str]:
    """Write the snapshot of the parquet files in `directory`, a work directory on the same filesystem;
    durable on return, and complete if its name exists. Returns its size in bytes and its SHA-256."""
    part = directory / path.name
    with translated(f"write {part}"):
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
            encoded = msgspec.json.encode(manifest)
            information = tarfile.TarInfo(MANIFEST)
            information.size = len(encoded)
            tar.addfile(information, io.BytesIO(encoded))
            for name in (REVISIONS, ITEMS):
                tar.add(directory / name, arcname=name, recursive=False)
        size, digest = part.stat().st_size, file_sha256(part)
    sync_file(part)
    with translated(f"rename {part}"):
        part.rename(path)
    sync_directory(path.parent)
    return size, digest


def file_sha256(path: Path) -> str:
    with translated(f"read {path}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(path: Path, sha256: str, directory: Path) -> Manifest:
    """Verify a snapshot and put its parquet files into `directory`.

    Raises StorageCorruptError for one that is damaged, cut short, or not ours; a newer version's
    format is refused in the same way, because it cannot be verified.
    """
    if not path.exists():
        raise StorageCorruptError(f"snapshot {path} does not exist")
    actual = file_sha256(path)
    if actual != sha256:
        raise StorageCorruptError(f"snapshot {path} has SHA-256 {actual}, expected {sha256}: fetch it again")
    try:
        with tarfile.open(path, "r:") as tar:
            manifest = _decode_manifest(_member(tar, MANIFEST).read(_MANIFEST_BYTES_MAX))
            for name in (REVISIONS, ITEMS):
                _extract(_member(tar, name), directory / name)
    except (tarfile.TarError, KeyError, msgspec.MsgspecError) as e:
        raise StorageCorruptError(f"{path} is not a snapshot of etcray: {e}") from e
    return manifest


def _decode_manifest(encoded: bytes) -> Manifest:
    manifest = msgspec.json.decode(encoded, type=Manifest)
    if manifest.format != FORMAT or not 1 <= manifest.format_version <= FORMAT_VERSION:
        raise StorageCorruptError(
            f"a snapshot of format {manifest.format!r} version {manifest.format_version}, "
            f"this version reads {FORMAT!r} up to version {FORMAT_VERSION}"
        )
    return manifest


def _member(tar: tarfile.TarFile, name: str) -> io.BufferedReader:
    file = tar.extractfile(name)
    if file is None:
        raise tarfile.ReadError(f"{name} is not a regular file")
    assert isinstance(file, io.BufferedReader), f"{name}: {type(file)}"
    return file


def _extract(source: io.BufferedReader, path: Path) -> None:
    with translated(f"write {path}"), path.open("wb") as target:
        while chunk := source.read(_READ_BYTES):
            target.write(chunk)


class SnapshotReceiver:
    """Puts a snapshot together from chunks, in a file beside others of its kind.

    Chunks come in order; a repeated one is ignored, one behind a gap is refused by answering with the
    offset that is wanted. Only one snapshot is received at a time: a chunk of another one discards
    what there was. The file survives a restart, and goes on where it stopped; that its bytes are
    right is only known from the SHA-256 in the end, so nothing is synced before.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def accept(self, sha256: str, total_bytes: int, offset: int, chunk: bytes) -> int:
        """Store a chunk. Returns the offset that is wanted next: `total_bytes` when all are here.

        Raises StorageCorruptError for numbers that no honest sender sends: they came over the network.
        """
        if not _SHA256.fullmatch(sha256) or not 0 < total_bytes <= SNAPSHOT_BYTES_MAX:
            raise StorageCorruptError(f"snapshot {sha256[:80]!r} of {total_bytes} bytes is refused")
        if len(chunk) > SNAPSHOT_CHUNK_BYTES or not 0 <= offset <= total_bytes - len(chunk):
            raise StorageCorruptError(f"chunk of {len(chunk)} bytes at {offset} of {total_bytes} is refused")
        path = self._path(sha256)
        self._discard_others(path)
        with translated(f"write {path}"), path.open("ab") as file:
            present = file.tell()
            if present > total_bytes:
                file.truncate(0)
                present = 0
            skip = present - offset
            if 0 <= skip < len(chunk):
                file.write(chunk[skip:])
                present += len(chunk) - skip
        return present

    def finish(self, sha256: str, total_bytes: int) -> Path:
        """The verified file. Raises StorageCorruptError, and forgets all chunks, if it is not the
        one that was announced."""
        path = self._path(sha256)
        size = path.stat().st_size if path.exists() else 0
        if size != total_bytes or file_sha256(path) != sha256:
            self.discard()
            raise StorageCorruptError(f"snapshot {sha256} was damaged on its way: fetch it again")
        sync_file(path)
        return path

    def discard(self) -> None:
        """Forget every chunk: the snapshot is installed, or no longer wanted."""
        self._discard_others(None)

    def _path(self, sha256: str) -> Path:
        return self._directory / f"incoming-{sha256}.part"

    def _discard_others(self, keep: Path | None) -> None:
        with translated(f"clean {self._directory}"):
            for path in self._directory.glob("incoming-*.part"):
                if path != keep:
                    path.unlink()
