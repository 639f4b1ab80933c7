"""The durable tip: a second witness of how long the log is.

DuckDB opens a database whose WAL lost its tail, or is missing altogether, without a word: it cannot
know what was there. The tip is a small file of its own that says so. It is written after each commit
and synced a little later, off the path of acknowledgements, so it is at most as long as the log:

1. All members lose power at once. Each log has everything that was acknowledged; the tip on disk may
   be some commits behind, never ahead. Nobody is mistaken for damaged.
2. A log is shorter than its tip, or its row at the tip's sequence has another checksum. Then
   acknowledged rows are gone, and the member must not vote.

The file has two slots a page apart, written in turn, each with its own checksum: a write that is cut
short leaves the other slot. What must not be undone by a power loss (segments that may be removed,
the base that is left when they are gone, a segment that was begun) is synced before it is relied on.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Final

import msgspec

from etcray_storage.engine import sync_directory
from etcray_storage.errors import DataDirectoryError, StorageCorruptError
from etcray_storage.log.record import FORMAT, Checksum, Sequence
from etcray_storage.types import Index, Term

_SLOT: Final = struct.Struct(">9QQ")
_SLOT_DISTANCE: Final = 4096


class Tip(msgspec.Struct, frozen=True):
    """What the log is known to hold."""

    sequence: Sequence = Sequence(0)
    checksum: Checksum = Checksum(0)
    last_index: Index = Index(0)
    last_term: Term = Term(0)
    base_index: Index = Index(0)
    base_term: Term = Term(0)
    first_segment: int = 1
    """Segments with lower numbers are void, whether or not their files still exist."""


class TipFile:
    """The file of one log's tip. Thread-safe: appends and compactions each change their part."""

    def __init__(self, descriptor: int, tip: Tip, write_number: int) -> None:
        self._descriptor = descriptor
        self._write_number = write_number
        """Counts writes, and picks the slot. The slot with the higher number is the newer one."""
        self._dirty = False
        self._lock = threading.Lock()
        self.tip = tip

    @classmethod
    def create(cls, path: Path) -> TipFile:
        """Make the file of an empty log, all or nothing."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(_encode(Tip(), 0).ljust(_SLOT_DISTANCE, b"\0") + bytes(_SLOT_DISTANCE))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(path.parent)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> TipFile:
        """Raises StorageCorruptError when neither slot is intact."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            slots = [_decode(os.pread(descriptor, _SLOT.size, n * _SLOT_DISTANCE), path) for n in (0, 1)]
            intact = [slot for slot in slots if slot is not None]
            if not intact:
                raise StorageCorruptError(
                    f"{path}: expected an intact record of the log's end, found none in either slot; "
                    "replace this member (remove it from the cluster, then add it with an empty directory)"
                )
            number, tip = max(intact, key=lambda slot: slot[0])
            return cls(descriptor, tip, number)
        except BaseException:
            os.close(descriptor)
            raise

    def advance(self, sequence: Sequence, checksum: Checksum, last_index: Index, last_term: Term) -> None:
        """Note a row that is durable in the log. Not synced."""
        with self._lock:
            assert sequence > self.tip.sequence, f"tip goes back: {self.tip.sequence} to {sequence}"
            tip = self.tip
            base_index, base_term, first_segment = tip.base_index, tip.base_term, tip.first_segment
            self._write(Tip(sequence, checksum, last_index, last_term, base_index, base_term, first_segment))

    def rebase(self, base_index: Index, base_term: Term, first_segment: int) -> None:
        """Note that everything up to the base, and all segments before this one, are void. Synced."""
        with self._lock:
            assert first_segment >= self.tip.first_segment, f"segment {first_segment} was void already"
            tip = self.tip
            end = (tip.sequence, tip.checksum, tip.last_index, tip.last_term)
            self._write(Tip(*end, base_index, base_term, first_segment))
        self.sync()

    def sync(self) -> None:
        """Make what was written durable. Writers are not held up meanwhile."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)

    def _write(self, tip: Tip) -> None:
        number = self._write_number + 1
        os.pwrite(self._descriptor, _encode(tip, number), number % 2 * _SLOT_DISTANCE)
        self._write_number = number
        self._dirty = True
        self.tip = tip


def _encode(tip: Tip, number: int) -> bytes:
    fields = (FORMAT, number, *msgspec.structs.astuple(tip))
    return _SLOT.pack(*fields, zlib.crc32(struct.pack(">9Q", *fields)))


def _decode(slot: bytes, path: Path) -> tuple[int, Tip] | None:
    if len(slot) < _SLOT.size:
        return None
    *fields, checksum = _SLOT.unpack(slot)
    if zlib.crc32(slot[:-8]) != checksum:
        return None
    if fields[0] != FORMAT:
        raise DataDirectoryError(
            f"{path} has format {fields[0]}, this version reads {FORMAT}: start it with a newer version"
        )
    sequence, log_checksum, last_index, last_term, base_index, base_term, first_segment = fields[2:]
    tip = Tip(
        Sequence(sequence),
        Checksum(log_checksum),
        Index(last_index),
        Term(last_term),
        Index(base_index),
        Term(base_term),
        first_segment,
    )
    return fields[1], tip
