"""The manifest: which files are the history. What it does not name does not count, and is removed.

It is the only thing that is ever replaced, by rename: so every change of the history that touches several
files takes effect in one instant, or not at all. Its last line is a checksum of the rest.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

import msgspec

from etcray_storage.engine import sync_directory, sync_file, translated
from etcray_storage.errors import DataDirectoryError, StorageCorruptError
from etcray_storage.history.rows import Compaction, Gap

FORMAT: Final = 1
NAME: Final = "manifest.json"
PARTS: Final = "parts"


class Part(msgspec.Struct, frozen=True):
    """One immutable Parquet file, ordered by (key, main)."""

    name: str
    first_revision: int
    last_revision: int
    """Of what it covers, which may be more than what its rows hold."""
    time_ms_max: int
    rows: int
    bytes: int
    checksum: int
    """CRC-32 of the file."""
    base: bool = False
    """The state at `last_revision`, left of dropped parts: one row per key, at its own old revision."""


class Manifest(msgspec.Struct, frozen=True):
    """All that the history is, but for what its tail has gained since."""

    format: int
    cluster_id: str
    sequence: int
    """Number of the tail. Grows with every seal, so no file name is used twice."""
    parts: tuple[Part, ...] = ()
    """In order of their revisions, without overlap. A base, if there is one, is the first."""
    gaps: tuple[Gap, ...] = ()
    """In order, without overlap, all below the position."""
    compactions: tuple[Compaction, ...] = ()
    """Known when the tail was begun; later ones are in the tail."""

    @property
    def tail_name(self) -> str:
        return f"tail-{self.sequence:08}.duckdb"

    @property
    def sealed_through(self) -> int:
        """Up to here the parts have it all."""
        return self.parts[-1].last_revision if self.parts else 1


class _Format(msgspec.Struct, frozen=True):
    format: int


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace it, durably."""
    body = msgspec.json.format(msgspec.json.encode(manifest))
    temporary = directory / f"{NAME}.new"
    with translated(f"write {temporary}"):
        temporary.write_bytes(body + f"\n{zlib.crc32(body):08x}\n".encode())
    sync_file(temporary)
    publish(temporary, directory / NAME)


def publish(temporary: Path, path: Path) -> None:
    with translated(f"rename {temporary}"):
        os.replace(temporary, path)
    sync_directory(path.parent)


def read_manifest(directory: Path, cluster_id: str) -> Manifest | None:
    """None if there is none yet. Raises StorageCorruptError if it is damaged, DataDirectoryError if it
    is another cluster's or of a newer format."""
    try:
        content = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    body, _, checksum = content.rstrip(b"\n").rpartition(b"\n")
    if checksum != f"{zlib.crc32(body):08x}".encode():
        raise StorageCorruptError(f"{directory / NAME} is damaged: its checksum does not fit")
    version = msgspec.json.decode(body, type=_Format).format
    if version > FORMAT:
        raise DataDirectoryError(
            f"{directory} has format {version}, this version reads up to {FORMAT}: start a newer version of "
            "etcray, or remove the directory (the history is then rebuilt from what the members still have)"
        )
    manifest = msgspec.json.decode(body, type=Manifest)
    if manifest.cluster_id != cluster_id:
        raise DataDirectoryError(
            f"{directory} is the history of cluster {manifest.cluster_id}, not of {cluster_id}: "
            "give another directory"
        )
    return manifest
