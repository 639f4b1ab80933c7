"""What the product opens on a disk, in the simulation: directory, log, tables, snapshot files.

Each has the methods of the real one that members use, with the same promises and the same errors; the
content is in `disk.Disk`. What a method changes in memory before it is durable, the real one changes as
well: there is a difference between a log that was compacted and a log that remembers it after a crash.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from etcray_storage.errors import DataDirectoryInUseError, QuarantinedError, StorageCorruptError
from etcray_storage.log import CompactedError, Record
from etcray_storage.mvcc.events import EventRows, in_range, take_piece
from etcray_storage.mvcc.rows import Flush, Point, RevisionRow, StateItem
from etcray_storage.mvcc.schema import Meta
from etcray_storage.mvcc.snapshot import SnapshotFile
from etcray_storage.types import Entry, HardState, Incarnation, Index, Membership, SnapshotMeta, Term
from tests.simulation.disk import Disk, Disks, DurableTables
from tests.simulation.primitives import Lock, the

RESERVE_WRITES: Final = 12
"""For how many writes the reserve is enough."""

disks: Disks = Disks()
"""Those of the running simulation; replaced by `start`."""


def start() -> Disks:
    """Begin a simulation: no directory holds anything."""
    global disks
    disks = Disks()
    return disks


class Path:
    """A file's name on a simulated disk: `/disk/...`."""

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)

    def __truediv__(self, name: str) -> Path:
        return Path(f"{self._path}/{name}")

    def __str__(self) -> str:
        return self._path

    __repr__ = __str__

    @property
    def disk(self) -> Disk:
        return disks[self._path.split("/")[1]]

    def write_text(self, _text: str) -> None:
        """Only said on the way out of a failed process."""

    def exists(self) -> bool:
        return self._path in self.disk.files

    def open(self, _mode: str) -> io.BytesIO:
        self.disk.read()
        return io.BytesIO(self.disk.files[self._path])

    def unlink(self, missing_ok: bool = False) -> None:
        self.disk.files.pop(self._path, None)


class Identity(NamedTuple):
    complete: bool


class DataDirectory:
    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._incarnation = disk.incarnation

    @classmethod
    def open(cls, path: Path, *_ids: object, must_exist: bool = False) -> DataDirectory:
        disk = path.disk
        process = the.process
        if disk.holder is not None and not disk.holder.is_dead:
            raise DataDirectoryInUseError(f"{path} is in use")
        disk.settle()
        disk.check_readable()
        if must_exist and not disk.incarnation:
            raise QuarantinedError(f"{path} has lost its data")
        disk.holder = process
        incarnation = disk.incarnation + 1
        disk.write(lambda: setattr(disk, "incarnation", incarnation), needs_space=False)
        return cls(path, disk)

    @property
    def incarnation(self) -> Incarnation:
        return Incarnation(self._incarnation)

    @property
    def identity(self) -> Identity:
        return Identity(self._disk.is_complete)

    def mark_complete(self) -> None:
        if not self._disk.is_complete:
            self._disk.write(lambda: setattr(self._disk, "is_complete", True))

    def check_owned(self) -> None:
        self._disk.check_holder()

    def quarantine(self, reason: str) -> QuarantinedError:
        self._disk.quarantine_reason = reason
        return QuarantinedError(f"{self.path} is quarantined: {reason}")

    def close(self) -> None:
        if self._disk.holder is the.process:
            self._disk.holder = None


class Log:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._durable = disk.log
        self._base_index = disk.log.base_index
        self._base_term = disk.log.base_term
        self._append_lock = Lock()
        self.is_new = False

    @classmethod
    def open(cls, path: Path, *, is_synced: bool = True) -> Log:
        assert is_synced, "what is not synced would be lost here in any crash, and is allowed to be"
        disk = path.disk
        disk.read()
        if disk.log.damaged_index is not None:
            raise StorageCorruptError(f"{path}: the record of entry {disk.log.damaged_index} is damaged")
        log = cls(disk)
        if not disk.log.exists:
            disk.write(lambda: setattr(log._durable, "exists", True))
            log.is_new = True
        return log

    @property
    def hard_state(self) -> HardState:
        return self._durable.hard_state

    @property
    def base_index(self) -> Index:
        return self._base_index

    @property
    def base_term(self) -> Term:
        return self._base_term

    @property
    def first_index(self) -> Index:
        return Index(self._base_index + 1)

    @property
    def last_index(self) -> Index:
        return self._durable.last_index

    def term(self, index: Index) -> Term:
        self._check(index, self._base_index)
        return self._base_term if index == self._base_index else self._durable.term(index)

    def _check(self, index: Index, lowest: Index) -> None:
        self._disk.read()
        if index < lowest:
            raise CompactedError(index, self._base_index)
        assert index <= self.last_index, f"entry {index} is beyond the last, {self.last_index}"

    def first_within(self, bytes_max: int) -> Index:
        first = self.last_index + 1
        for entry in reversed(self._durable.entries):
            bytes_max -= len(entry.data)
            if bytes_max < 0:
                break
            first = entry.index
        return Index(max(first, self.first_index))

    def entries(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        self._check(first, self.first_index)
        assert last <= self.last_index, f"entry {last} is beyond the last, {self.last_index}"
        base = self._durable.base_index
        found: list[Entry] = []
        size = 0
        for entry in self._durable.entries[first - base - 1 : last - base]:
            size += len(entry.data)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def append(self, record: Record) -> None:
        with self._append_lock:
            old, new, entries = self.hard_state, record.hard_state, record.entries
            assert new.term >= old.term, f"term goes back from {old.term} to {new.term}"
            assert new.commit >= old.commit, f"commit goes back from {old.commit} to {new.commit}"
            if entries:
                first = entries[0].index
                assert self._base_index < first <= self.last_index + 1, (
                    f"record begins at {first}, the log is {self.first_index}..{self.last_index}"
                )
            self._disk.write(lambda: self._durable.write(new, entries))

    def reset(self, index: Index, term: Term, hard_state: HardState) -> None:
        with self._append_lock:
            assert index >= self._base_index, f"reset to {index}, below the base {self._base_index}"
            self._disk.write(lambda: self._durable.reset(index, term, hard_state))
            self._base_index, self._base_term = index, term

    def compact(self, through: Index) -> None:
        if through <= self._base_index:
            return
        term = self._durable.term(through)
        self._base_index, self._base_term = through, term
        self._disk.write(lambda: self._rebase(through, term), needs_space=False)

    def _rebase(self, index: Index, term: Term) -> None:
        if self._durable.base_index < index <= self._durable.last_index:
            self._durable.rebase(index, term)

    def maintain(self) -> None:
        self._disk.check_holder()

    def verifier(self) -> Verifier:
        return Verifier(self._disk)

    def close(self) -> None: ...


class Verifier:
    """Looks for damage in the background, as the real ones do piece by piece."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def step(self) -> bool:
        if self._disk.is_damaged:
            raise StorageCorruptError(f"{self._disk.name}: a damaged record was found")
        return True


class _Stored(msgspec.Struct, array_like=True):
    """A snapshot's content."""

    meta: Meta
    rows: list[RevisionRow]
    items: list[tuple[str, bytes, bytes]]


_decode_stored = msgspec.msgpack.Decoder(_Stored).decode
_encode_stored = msgspec.msgpack.Encoder().encode


class Tables:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._disk = path.disk
        self._durable: DurableTables = self._disk.tables
        self._staged: tuple[Flush, ...] = ()
        self._write_lock = Lock()
        self._is_closed = False

    @classmethod
    def open(cls, path: Path) -> Tables:
        path.disk.read()
        if path.disk.tables.is_damaged:
            raise StorageCorruptError(f"{path} is damaged")
        return cls(path)

    @classmethod
    def open_installed(cls, path: Path, prepared: DurableTables) -> Tables:
        disk = path.disk
        disk.write(lambda: setattr(disk, "tables", prepared))
        disk.installed += 1
        return cls(path)

    @property
    def applied_index(self) -> Index:
        return self._durable.meta.applied_index

    @property
    def applied_term(self) -> Term:
        return self._durable.meta.applied_term

    @property
    def revision(self) -> int:
        return self._durable.meta.revision

    @property
    def compact_revision(self) -> int:
        return self._durable.meta.compact_revision

    @property
    def membership(self) -> Membership:
        return self._durable.meta.membership

    size_bytes: Final = 8192
    size_in_use_bytes: Final = 4096

    def bootstrap(self, membership: Membership) -> None:
        durable = self._durable
        self._disk.write(lambda: setattr(durable, "meta", durable.meta._replace(membership=membership)))

    def load_history(self) -> Iterator[list[tuple[bytes, int, bool]]]:
        self._disk.read()
        if self._durable.rows:
            yield [(row.key, row.main, row.tombstone) for row in self._durable.rows]

    def load_current(self) -> Iterator[list[RevisionRow]]:
        newest = {row.key: row for row in self._durable.rows}
        yield [row for row in newest.values() if not row.tombstone]

    def load_items(self) -> list[StateItem]:
        return [StateItem(part, key, value) for (part, key), value in self._durable.items.items()]

    def stage(self, flush: Flush) -> None:
        newest = self._staged[-1] if self._staged else self._durable.meta
        assert flush.applied_index >= newest.applied_index, f"flush of {flush.applied_index} is old"
        if flush.rows:
            assert newest.revision < flush.rows[0].main, f"rows from {flush.rows[0].main} on are not new"
        self._staged = (*self._staged, flush)

    def write(self) -> None:
        with self._write_lock:
            assert not self._is_closed, "write to closed tables"
            staged = self._staged
            if staged:
                self._disk.write(lambda: self._commit(staged))
                self._staged = self._staged[len(staged) :]

    def _commit(self, staged: tuple[Flush, ...]) -> None:
        durable, newest = self._durable, staged[-1]
        membership = getattr(newest, "membership", durable.meta.membership)
        for flush in staged:
            durable.rows += flush.rows
            for part, key, value in flush.items:
                durable.items.pop((part, key), None)
                if value is not None:
                    durable.items[part, key] = value
        durable.meta = Meta(
            newest.applied_index, newest.applied_term, newest.revision, newest.compact_revision, membership
        )

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        self._disk.read()
        known: dict[tuple[bytes, int], RevisionRow] = {}
        for rows in (self._durable.rows, *(flush.rows for flush in self._staged)):
            known.update(((row.key, row.main), row) for row in rows)
        for point in points:
            if point not in known:
                from etcray_storage import errors

                if point.main <= self.compact_revision:
                    raise errors.error_by_number(errors.COMPACTED.number)
                raise StorageCorruptError(f"revision {point.main} is not in {self._path}")
        return [known[point] for point in points]

    def events(
        self, key: bytes, range_end: bytes, first: int, last: int, *, revisions_max: int, bytes_max: int
    ) -> EventRows | None:
        self._disk.read()
        if self._is_closed:
            return None
        found = [
            row
            for rows in (self._durable.rows, *(flush.rows for flush in self._staged))
            for row in rows
            if first <= row.main <= last and in_range(row.key, key, range_end)
        ]
        return take_piece(found, last, revisions_max, bytes_max)

    def maintain(self, force: bool = False) -> None:
        """Rewrite without what the compaction left no need for."""
        with self._write_lock:
            compact_revision = self.compact_revision
            if compact_revision > 0 and not self._is_closed:
                rows = _needed(self._durable.rows, compact_revision)
                if len(rows) < len(self._durable.rows):
                    durable = self._durable
                    self._disk.write(lambda: setattr(durable, "rows", rows))

    def verifier(self, _find_difference: object = None) -> Verifier:
        return Verifier(self._disk)

    def export_snapshot(self, directory: Path) -> SnapshotFile:
        self._disk.read()
        meta = self._durable.meta
        items = [(part, key, value) for (part, key), value in self._durable.items.items()]
        data = _encode_stored(_Stored(meta, _needed(self._durable.rows, meta.compact_revision), items))
        path = directory / f"snapshot-{meta.applied_term}-{meta.applied_index}.tar"
        self._disk.write(lambda: self._disk.files.update({str(path): data}))
        described = SnapshotMeta(meta.applied_index, meta.applied_term, meta.membership)
        return SnapshotFile(path, len(data), hashlib.sha256(data).hexdigest(), described)  # type: ignore[arg-type]

    def close(self) -> None:
        with self._write_lock:
            self._is_closed = True


def _needed(rows: list[RevisionRow], compact_revision: int) -> list[RevisionRow]:
    """As `schema.needed_revisions`."""
    newest = {row.key: row for row in rows if row.main <= compact_revision}
    return [
        row
        for row in rows
        if row.main > compact_revision
        or (newest[row.key] is row and (not row.tombstone or row.main == compact_revision))
    ]


class SnapshotReceiver:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._disk = directory.disk

    def _name(self, sha256: str) -> str:
        return f"{self._directory}/incoming-{sha256}.part"

    def accept(self, sha256: str, total_bytes: int, offset: int, chunk: bytes) -> int:
        self._disk.check_holder()
        files, name = self._disk.files, self._name(sha256)
        for other in [other for other in files if "/incoming-" in other and other != name]:
            del files[other]
        present = files.get(name, b"")
        if 0 <= len(present) - offset < len(chunk):
            present += chunk[len(present) - offset :]
            files[name] = present
        return len(present)

    def finish(self, sha256: str, total_bytes: int) -> Path:
        data = self._disk.files.get(self._name(sha256), b"")
        if len(data) != total_bytes or hashlib.sha256(data).hexdigest() != sha256:
            self.discard()
            raise StorageCorruptError(f"snapshot {sha256} was damaged on its way")
        self._disk.write(lambda: None)
        return Path(self._name(sha256))

    def discard(self) -> None:
        for name in [name for name in self._disk.files if "/incoming-" in name]:
            del self._disk.files[name]


def prepare_install(_directory: Path, path: Path, sha256: str) -> DurableTables:
    data = path.disk.files.get(str(path), b"")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StorageCorruptError(f"snapshot {path} is not the one that was verified")
    stored = _decode_stored(data)
    tables = DurableTables()
    tables.meta = stored.meta
    tables.rows = stored.rows
    tables.items = {(part, key): value for part, key, value in stored.items}
    path.disk.write(lambda: None)
    return tables


def free_bytes(path: Any) -> int:
    """Instead of `disk_space.free_bytes`."""
    return 0 if Path(path).disk.is_full else 1 << 40


class Ballast:
    """The reserve of a full disk: room for a few more writes."""

    def __init__(self, directory: Path) -> None:
        self._disk = directory.disk

    def make(self) -> bool:
        if not self._disk.is_full:
            self._disk.reserve_writes = RESERVE_WRITES
        return self._disk.reserve_writes > 0

    def release(self) -> bool:
        had, self._disk.reserve_writes = self._disk.reserve_writes, 0
        self._disk.spare_writes += had
        return had > 0
