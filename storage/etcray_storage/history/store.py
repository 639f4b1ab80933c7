"""The history store: parts, tail and manifest as one thing that only grows at its end."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from etcray_storage.engine import Engine, sync_directory, translated
from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError, StorageCorruptError
from etcray_storage.history.base import BaseBuilder, newest_at
from etcray_storage.history.manifest import FORMAT, PARTS, Manifest, Part, read_manifest, write_manifest
from etcray_storage.history.parts import remove_strangers, why_damaged, write_part
from etcray_storage.history.retention import Retention, gaps_after_cut, parts_to_drop
from etcray_storage.history.rows import ROWS_SCHEMA, Gap, HistoryBatch
from etcray_storage.history.tail import NAME as TAIL
from etcray_storage.history.tail import Tail, above
from etcray_storage.limits import (
    HISTORY_COMPACTIONS_MAX,
    HISTORY_MEMORY_MIB,
    HISTORY_TAIL_BYTES_MAX,
    HISTORY_TAIL_ROWS_MAX,
)

_LOCK: Final = "LOCK"


class HistoryStatus(msgspec.Struct, frozen=True):
    """The store in numbers."""

    position: int
    first_revision: int
    """The oldest revision from which on every state is known, but for `gaps`."""
    rows: int
    parts: int
    part_bytes: int
    tail_rows: int
    gaps: list[Gap]
    damage: list[str]


class Snapshot:
    """The history at one instant. Its part files stay until `release`, whatever retention does."""

    def __init__(self, store: HistoryStore, manifest: Manifest, tail: Tail) -> None:
        self._store: HistoryStore | None = store
        self.names: Final = tuple(part.name for part in manifest.parts)
        self.parts: Final = [str(store.directory / PARTS / name) for name in self.names]
        self.tail: Final = tuple(tail.tables)
        self.epoch: Final = manifest.sequence
        """Two snapshots of one epoch differ only in rows at the end of the tail."""
        self.position: Final = tail.position
        self.gaps: Final = list(manifest.gaps)
        self.compactions: Final = [*manifest.compactions, *tail.compactions]

    def release(self) -> None:
        """Let the files go. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            store.unpin(self.names)


class HistoryStore:
    """One directory. `append`, `seal`, `begin_base`, `verify` and `close` belong to one thread; `snapshot`,
    `status` and `Snapshot.release` may be called from any.

    After a StorageFatalError or StorageFullError the store has to be closed and opened again.
    """

    def __init__(
        self, directory: Path, lock: int, engine: Engine, manifest: Manifest, tail: Tail, damage: list[str]
    ) -> None:
        self.directory: Final = directory
        self.retention = Retention()
        self.damage = damage
        """What was found broken and thrown away, in words. The rows are fetched again from the members."""
        self._lock_file = lock
        self._engine = engine
        self._manifest = manifest
        self._tail = tail
        self._now_ms: Callable[[], int] = lambda: 0
        self._mutex = threading.Lock()
        """Held to publish a change of manifest or tail, to copy both, and for the two fields below."""
        self._pins: Counter[str] = Counter()
        """Snapshots that use a part."""
        self._doomed: set[str] = set()
        """Parts that no manifest names and a snapshot still uses."""

    # --- opening ------------------------------------------------------------------------------
    @classmethod
    def open(
        cls, directory: Path, cluster_id: str, retention: Retention, now_ms: Callable[[], int]
    ) -> HistoryStore:
        """Open or create it. Damage is no error: see `damage`.

        Raises DataDirectoryInUseError while another process has it, DataDirectoryError if it is another
        cluster's, of a newer format, or cannot be written.
        """
        try:
            (directory / PARTS).mkdir(parents=True, exist_ok=True)
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise DataDirectoryError(
                f"{directory} cannot be used: {e.strerror}; give another directory, or make it writable"
            ) from e
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise DataDirectoryInUseError(
                    f"another process uses the history in {directory}: stop it first"
                ) from e
            store = cls._open_locked(directory, cluster_id, lock)
        except BaseException:
            os.close(lock)
            raise
        store.retention = retention
        store._now_ms = now_ms
        return store

    @classmethod
    def _open_locked(cls, directory: Path, cluster_id: str, lock: int) -> HistoryStore:
        damage: list[str] = []
        try:
            manifest = read_manifest(directory, cluster_id)
        except StorageCorruptError as e:
            damage.append(str(e))
            manifest = None
        if manifest is None:
            manifest = Manifest(FORMAT, cluster_id, sequence=0)
            return cls._begin_anew(directory, lock, manifest, damage)
        intact = _intact(directory, manifest, damage, thorough=False)
        if len(intact) < len(manifest.parts):
            return cls._begin_anew(directory, lock, _cut(manifest, intact), damage)
        engine = Engine.open(None, HISTORY_MEMORY_MIB)
        try:
            tail = Tail.open(engine, directory / manifest.tail_name, manifest.sealed_through)
        except StorageCorruptError as e:
            engine.close()
            return cls._begin_anew(directory, lock, manifest, [*damage, str(e)])
        remove_strangers(directory, manifest)
        return cls(directory, lock, engine, manifest, tail, damage)

    @classmethod
    def _begin_anew(cls, directory: Path, lock: int, manifest: Manifest, damage: list[str]) -> HistoryStore:
        """Begin a new tail behind the parts of this manifest."""
        manifest = msgspec.structs.replace(manifest, sequence=_free_sequence(directory, manifest))
        engine = Engine.open(None, HISTORY_MEMORY_MIB)
        tail = Tail.create(engine, directory / manifest.tail_name, manifest.sealed_through)
        write_manifest(directory, manifest)
        remove_strangers(directory, manifest)
        return cls(directory, lock, engine, manifest, tail, damage)

    # --- following ----------------------------------------------------------------------------
    @property
    def position(self) -> int:
        """Complete through this revision, but for the gaps. A new store has 1: etcd's first revision, at
        which there is nothing."""
        return self._tail.position

    def append(self, batch: HistoryBatch) -> int:
        """Store a batch durably, then seal and forget what is due. Returns how many rows were new: what a
        batch repeats is skipped, so it may be sent again after a doubt."""
        position = self._tail.position
        assert batch.after_revision <= position, (
            f"a batch after {batch.after_revision} leaves out what follows {position}"
        )
        assert batch.rows.schema.equals(ROWS_SCHEMA), f"rows of another shape: {batch.rows.schema}"
        rows = batch.rows if batch.after_revision == position else above(batch.rows, position)
        known = {noted.revision for noted in (*self._manifest.compactions, *self._tail.compactions)}
        compactions = [noted for noted in batch.compactions if noted.revision not in known]
        through = max(batch.through_revision, position)
        if through == position and not compactions:
            return 0
        with self._mutex:
            self._tail.append(rows, through, compactions)
        if self._tail.rows >= HISTORY_TAIL_ROWS_MAX or self._tail.bytes >= HISTORY_TAIL_BYTES_MAX:
            self.seal()
            self.forget()
        return int(rows.num_rows)

    def seal(self) -> None:
        """Turn the tail into a part, and begin a new tail."""
        part = self.write_tail()
        if part is not None:
            self.commit((*self._manifest.parts, part), self._manifest.gaps, self._tail.position)

    def write_tail(self) -> Part | None:
        """The tail's rows as a part that does not count yet; None if it has no rows."""
        first, last = self._manifest.sealed_through + 1, self._tail.position
        if not self._tail.rows:
            return None
        name = f"{self._manifest.sequence:08}-{first}-{last}.parquet"
        return write_part(self._engine, f"{TAIL}.rows", self.directory, name, first, last)

    def commit(self, parts: tuple[Part, ...], gaps: tuple[Gap, ...], position: int) -> None:
        """Let these parts, and an empty tail behind them, be the history: at once.

        1. A crash before the manifest is replaced leaves files that it does not name; the next start
           removes them, and the old tail has all rows. 2. A crash after it leaves the old tail, which is
           removed in the same way. The new tail is complete before the manifest names it.
        """
        old = self._tail
        noted = (*self._manifest.compactions, *old.compactions)[-HISTORY_COMPACTIONS_MAX:]
        manifest = Manifest(
            FORMAT, self._manifest.cluster_id, self._manifest.sequence + 1, parts, gaps, noted
        )
        old.detach()
        tail = Tail.create(self._engine, self.directory / manifest.tail_name, position)
        write_manifest(self.directory, manifest)
        with self._mutex:
            dropped = {part.name for part in self._manifest.parts} - {part.name for part in parts}
            self._manifest, self._tail = manifest, tail
            self._doomed |= dropped
        old.remove()
        self._remove_doomed()

    # --- bases and retention ------------------------------------------------------------------
    def needs_base(self, compact_revision: int) -> bool:
        """Whether a member that is compacted at this revision cannot continue the history."""
        return compact_revision > self.position

    def begin_base(self, compact_revision: int) -> BaseBuilder:
        """Begin again at a revision that a member still has, behind a gap."""
        assert self.needs_base(compact_revision), f"a base at {compact_revision} for position {self.position}"
        return BaseBuilder(self, compact_revision)

    def forget(self) -> None:
        """Drop what retention does not ask to keep."""
        if not self._droppable():
            return
        self._seal_rows()
        parts, count = self._manifest.parts, self._droppable()
        cut = parts[count - 1].last_revision
        name = f"{self._manifest.sequence:08}-base-{cut}.parquet"
        files = [str(self.directory / PARTS / part.name) for part in parts[:count]]
        base = write_part(self._engine, f"({newest_at(files)})", self.directory, name, 1, cut, base=True)
        gaps = gaps_after_cut(self._manifest.gaps, cut)
        kept = (() if base is None else (base,)) + parts[count:]
        self.commit(kept, gaps, self.position)

    def _droppable(self) -> int:
        return parts_to_drop(self._manifest.parts, self.retention, self.position, self._now_ms())

    def _seal_rows(self) -> None:
        """`commit` begins an empty tail, so whatever the tail holds has to be in a part."""
        if self._tail.rows:
            self.seal()

    # --- reading ------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot:
        """All of it, now. Costs no disk access. Call its `release` when done."""
        with self._mutex:
            snapshot = Snapshot(self, self._manifest, self._tail)
            self._pins.update(snapshot.names)
            return snapshot

    def unpin(self, names: tuple[str, ...]) -> None:
        """A snapshot has ended."""
        with self._mutex:
            self._pins.subtract(names)
        self._remove_doomed()

    def status(self) -> HistoryStatus:
        with self._mutex:
            manifest, tail = self._manifest, self._tail
            gaps = list(manifest.gaps)
            return HistoryStatus(
                position=tail.position,
                first_revision=gaps[0].last + 1 if gaps and gaps[0].first == 1 else 1,
                rows=sum(part.rows for part in manifest.parts) + tail.rows,
                parts=len(manifest.parts),
                part_bytes=sum(part.bytes for part in manifest.parts),
                tail_rows=tail.rows,
                gaps=gaps,
                damage=list(self.damage),
            )

    def verify(self) -> list[str]:
        """Read every part and compare its checksum. The first damaged one goes, with all that follows it:
        the position goes back, and the rows are fetched again."""
        damage: list[str] = []
        intact = _intact(self.directory, self._manifest, damage, thorough=True)
        if damage:
            cut = _cut(self._manifest, intact)
            self.commit(cut.parts, cut.gaps, cut.sealed_through)
            self.damage += damage
        return damage

    def close(self) -> None:
        self._engine.close()
        os.close(self._lock_file)

    @property
    def engine(self) -> Engine:
        """For the builder of a base, which works for this store on its thread."""
        return self._engine

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def _remove_doomed(self) -> None:
        with self._mutex:
            free = {name for name in self._doomed if self._pins[name] <= 0}
            self._doomed -= free
        with translated("remove old parts"):
            for name in free:
                (self.directory / PARTS / name).unlink(missing_ok=True)
        if free:
            sync_directory(self.directory / PARTS)


def _intact(directory: Path, manifest: Manifest, damage: list[str], thorough: bool) -> tuple[Part, ...]:
    """The parts before the first damaged one."""
    for count, part in enumerate(manifest.parts):
        why = why_damaged(directory, part, thorough)
        if why:
            damage.append(why)
            return manifest.parts[:count]
    return manifest.parts


def _cut(manifest: Manifest, intact: tuple[Part, ...]) -> Manifest:
    """The manifest without what follows these parts. A gap that goes on behind them goes as a whole, with
    the parts in it: the deletions at its end would be missing."""
    through = intact[-1].last_revision if intact else 1
    for gap in manifest.gaps:
        if gap.first <= through <= gap.last:
            intact = tuple(part for part in intact if part.last_revision < gap.first)
            through = intact[-1].last_revision if intact else 1
    gaps = tuple(gap for gap in manifest.gaps if gap.last < through)
    return msgspec.structs.replace(manifest, parts=intact, gaps=gaps)


def _free_sequence(directory: Path, manifest: Manifest) -> int:
    """A tail number that no file of the directory has."""
    taken = [int(path.name[5:13]) for path in directory.glob("tail-????????.duckdb*")]
    return max([manifest.sequence, *taken]) + 1
