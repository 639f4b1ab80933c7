"""The MVCC tables of one member on disk: flushed in bulk, read for old values, loaded at start.

Who calls what, and from which thread:

- `stage` under the node's state lock; `write` from the flusher thread; `rows`, `events` and `hash_kv` from
  anywhere; `maintain`, `export_snapshot` and a `verifier`'s steps from a maintenance thread; `open`,
  `load_*` and `close` by the owner.
- Locks are taken in this order: maintenance, write, read. `stage` takes none but the tiny one of the
  staged list, so the state lock never waits for the disk.

Between apply and `stage`, new rows are only in the state machine's own list, and it looks there first.
`take_flush` and `stage` are called together under the state lock, so that no read falls in between.

A row that is staged must be found at any moment. The story of the race, told once:

1. `rows` looks at the staged list, then at the disk. `write` commits, then takes rows off the list.
2. A row that `rows` did not see on the list was taken off before, so its commit was done before, and
   the query that starts afterwards sees it. The other order, disk first, would have a gap between.
3. A rewrite swaps files under the read lock, with writes stopped: the new file holds all that the old
   one held, except rows below the compact revision that nobody may ask for any more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from etcray_storage import errors
from etcray_storage.engine import Engine, Row, sync_directory
from etcray_storage.errors import StorageCorruptError, StorageFatalError
from etcray_storage.limits import FLUSH_ROWS_MAX, KIB, TABLES_WAL_BYTES
from etcray_storage.mvcc import schema, snapshot
from etcray_storage.mvcc.events import EventRows, in_range, take_piece
from etcray_storage.mvcc.export import export_parquet
from etcray_storage.mvcc.feed import FeedRows, arrow_of, base_revisions, read_feed, revisions_between
from etcray_storage.mvcc.generations import (
    Builder,
    clean,
    newest_generation,
    publish,
    remove_generation,
    work_directory,
)
from etcray_storage.mvcc.install import commit_install, prepare_install
from etcray_storage.mvcc.kv_hash import KvHash, hash_revisions
from etcray_storage.mvcc.rewrite import Rewrite
from etcray_storage.mvcc.rows import Flush, Point, RevisionRow, StateItem
from etcray_storage.mvcc.schema import Meta
from etcray_storage.mvcc.space import Space, count_garbage_share
from etcray_storage.mvcc.staged import Staged, rows_between
from etcray_storage.mvcc.table_file import TableFile
from etcray_storage.mvcc.verification import FindDifference, Verifier
from etcray_storage.types import Index, Membership, SnapshotMeta, Term

_EMPTY_BYTES: Final = 12 * KIB
"""What DuckDB needs for a file without rows."""
EVENTS_BATCH_ROWS: Final = 256
"""Rows fetched at once: a piece may end after any of them."""


class Tables:
    """Made by `open` or `install_snapshot`. Implements `rows.ValueReader`."""

    def __init__(self, directory: Path, file: TableFile) -> None:
        self._directory = directory
        self._file = file
        self._meta = schema.read_meta(file.writer)
        """What is on disk. Replaced as a whole after each commit, under the write lock."""
        self._complete_from = max(self._meta.compact_revision, 1)
        """Moves before a file is swapped for one with fewer rows."""
        self._staged: tuple[Staged, ...] = ()
        """In order of their applied index, all above `_meta`'s. Replaced as a whole, never changed,
        so that a reader may look at it without a lock."""
        self._staged_lock = Lock()
        self._read_lock = Lock()
        self._write_lock = Lock()
        self._maintenance_lock = Lock()
        self._closed = False
        self._space = Space(file.writer)
        ((newest,),) = file.writer.query("SELECT coalesce(max(main), 0) FROM revisions")
        if newest > self._meta.revision:
            raise StorageCorruptError(
                f"{file.path} holds revision {newest}, its meta row says {self._meta.revision}: "
                "rebuild this member from its peers"
            )

    @classmethod
    def open(cls, directory: Path) -> Tables:
        """Open the newest complete generation, or create the first. What a crash left is removed.

        Raises StorageCorruptError for a file that cannot be read, DataDirectoryError for one of a
        newer version. The caller holds the data directory's lock.
        """
        directory.mkdir(parents=True, exist_ok=True)
        clean(directory)
        number = newest_generation(directory)
        if number == 0:
            builder = Builder(directory, "new")
            schema.insert_meta(builder.engine, schema.EMPTY)
            number = publish(builder.finish(), directory)
        file = TableFile(directory, number)
        try:
            return cls(directory, file)
        except BaseException:
            file.close(checkpoint=False)
            raise

    @classmethod
    def install_snapshot(cls, directory: Path, snapshot_path: Path, sha256: str) -> Tables:
        """Replace the tables in `directory`, which nobody may have open, by a snapshot's state.

        Raises StorageCorruptError, with the old state untouched, for a snapshot that is not right. A
        member that serves meanwhile calls `prepare_install`, closes its tables, then
        `open_installed`.
        """
        return cls.open_installed(directory, prepare_install(directory, snapshot_path, sha256))

    @classmethod
    def open_installed(cls, directory: Path, prepared: Path) -> Tables:
        """The second half of `install_snapshot`: the old tables must be closed by now."""
        commit_install(directory, prepared)
        return cls.open(directory)

    # --- what is on disk ------------------------------------------------------------------------

    @property
    def applied_index(self) -> Index:
        return self._meta.applied_index

    @property
    def applied_term(self) -> Term:
        return self._meta.applied_term

    @property
    def revision(self) -> int:
        return self._meta.revision

    @property
    def compact_revision(self) -> int:
        return self._meta.compact_revision

    @property
    def membership(self) -> Membership:
        return self._meta.membership

    @property
    def size_bytes(self) -> int:
        """Of the file and its WAL."""
        with self._read_lock:  # a rewrite removes the file only after a swap
            return self._file.size_bytes()

    @property
    def size_in_use_bytes(self) -> int:
        """About what `maintain(force=True)` would leave; never 0, which an API would leave out."""
        size = self.size_bytes
        return max(size - self._space.garbage_bytes(size), min(size, _EMPTY_BYTES))

    def bootstrap(self, membership: Membership) -> None:
        """Store the founders of a cluster, before its first entry."""
        with self._write_lock:
            assert self.applied_index == 0, f"bootstrap at applied index {self.applied_index}"
            meta = self._meta._replace(membership=membership)
            schema.insert_meta(self._file.writer, meta)
            sync_directory(self._directory)
            self._meta = meta

    def load_history(self) -> Iterator[list[tuple[bytes, int, bool]]]:
        """(key, main, tombstone) of every revision on disk, ordered by main, then sub."""
        last = 0
        for batch in self._query_batches(schema.HISTORY):
            if batch[0][1] < last:
                raise StorageCorruptError(
                    f"{self._file.path} holds revision {batch[0][1]} behind {last}: "
                    "rebuild this member from its peers"
                )
            last = batch[-1][1]
            yield [(key, main, tombstone) for key, main, tombstone in batch]

    def load_current(self) -> Iterator[list[RevisionRow]]:
        """The newest row of each key, in no particular order; deleted keys are left out."""
        for batch in self._query_batches(schema.NEWEST_REVISIONS):
            yield [RevisionRow._make(row) for row in batch]

    def load_items(self) -> list[StateItem]:
        """The newest value of each (part, key), without the removed, in the order of their writing."""
        batches = self._query_batches(schema.NEWEST_ITEMS)
        return [StateItem(part, key, value) for batch in batches for part, key, value, _, _ in batch]

    def _query_batches(self, sql: str) -> Iterator[list[Row]]:
        with self._read_lock:
            engine = self._file.new_cursor()
        try:
            yield from engine.query_batches(sql)
        finally:
            engine.close()

    # --- flushing -------------------------------------------------------------------------------

    def stage(self, flush: Flush) -> None:
        """Take over a flush: from now on `rows` finds its rows. The caller must not change it."""
        newest = self._staged[-1].flush if self._staged else None
        applied = newest.applied_index if newest else self.applied_index
        revision = newest.revision if newest else self.revision
        assert flush.applied_index >= applied, f"flush of {flush.applied_index} staged after {applied}"
        if flush.rows:
            first, last = flush.rows[0].main, flush.rows[-1].main
            assert revision < first <= last <= flush.revision, (
                f"flush of revision {flush.revision} after {revision} has rows {first} to {last}"
            )
        with self._staged_lock:
            self._staged = (*self._staged, Staged(flush))

    def write(self) -> None:
        """Store everything staged, in one transaction, durably.

        On StorageFullError nothing of it is stored and all of it stays staged: a later call tries
        again. On StorageFatalError the process has to end.
        """
        with self._write_lock:
            staged = self._staged
            if not staged:
                return
            newest = staged[-1].flush
            meta = Meta(*newest[:4], newest.membership)
            rows = [row for s in staged for row in s.flush.rows]
            engine = self._file.writer
            with engine.transaction():
                for start in range(0, len(rows), FLUSH_ROWS_MAX):
                    schema.insert_revisions(engine, rows[start : start + FLUSH_ROWS_MAX])
                for s in staged:
                    schema.insert_items(engine, s.flush.items, s.flush.applied_index)
                schema.insert_meta(engine, meta)
            # The first commit after a checkpoint creates the WAL's file; its name must last, too.
            sync_directory(self._directory)
            for s in staged:
                self._space.wrote(s.flush.items)
            self._meta = meta
            with self._staged_lock:
                self._staged = self._staged[len(staged) :]

    # --- reading --------------------------------------------------------------------------------

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        """The rows at these points, in the same order, wherever they are.

        Raises COMPACTED for a missing one at or below the compact revision, which a reader outside
        of the state lock can meet; above it, StorageCorruptError: the key index knows what exists.
        """
        staged = self._staged  # before the disk: see the story above
        found: dict[tuple[bytes, int], RevisionRow] = {}
        missing: set[tuple[bytes, int]] = set()
        for point in points:
            row = next((r for s in staged if (r := s.get(point)) is not None), None)
            if row is None:
                missing.add(point)
            else:
                found[point] = row
        if missing:
            found.update(self._rows_on_disk(missing))
        return [found[point] for point in points]

    def _rows_on_disk(
        self, points: set[tuple[bytes, int]]
    ) -> Iterable[tuple[tuple[bytes, int], RevisionRow]]:
        mains = sorted({main for _, main in points})
        found: dict[tuple[bytes, int], RevisionRow] = {}
        with self._read_lock:
            # Only `main` is looked up in SQL: with the key in the join it costs 3 to 60 times as much.
            for batch in self._file.reader.query_batches(schema.READ_POINTS, parameters=[mains]):
                for columns in batch:
                    point = (columns[2], columns[0])
                    if point in points:
                        found[point] = RevisionRow._make(columns)
        for _, main in sorted(points - found.keys()):
            if main <= self.compact_revision:
                raise errors.error_by_number(errors.COMPACTED.number)
            raise StorageCorruptError(
                f"revision {main} is not in {self._file.path}: rebuild this member from its peers"
            )
        return found.items()

    def events(
        self, key: bytes, range_end: bytes, first: int, last: int, *, revisions_max: int, bytes_max: int
    ) -> EventRows | None:
        """What happened to a range of keys in the revisions from `first` to `last`, which is staged or
        written: a piece from the start of it. Rows at or below the compact revision may be missing, so
        the caller looks afterwards whether `first` is still readable.

        None if the tables are closed: an installed snapshot has replaced them.
        """
        staged = [s.flush.rows for s in self._staged if s.flush.rows]  # before the disk: as in `rows`
        on_disk = min(last, staged[0][0].main - 1) if staged else last
        with self.reading() as engine:
            if engine is None:
                return None
            rows = self._events_of(engine, staged, key, range_end, first, on_disk, last)
            with closing(rows):
                return take_piece(rows, last, revisions_max, bytes_max)

    def _events_of(
        self, engine: Engine, staged: list[list[RevisionRow]], key: bytes, range_end: bytes,
        first: int, on_disk: int, last: int,
    ) -> Generator[RevisionRow, None, None]:  # fmt: skip
        if first <= on_disk:
            sql, parameters = schema.events_of(key, range_end, first, on_disk)
            for batch in engine.query_batches(sql, parameters, EVENTS_BATCH_ROWS):
                yield from map(RevisionRow._make, batch)
        for row in rows_between(staged, first, last):
            if in_range(row.key, key, range_end):
                yield row

    @property
    def complete_from(self) -> int:
        """Every row of this revision and the later ones is here. Older ones may have been dropped: by a
        rewrite, or before this process opened the tables. To be read after the rows in question."""
        return self._complete_from

    def feed(self, after: int, last: int, bytes_max: int) -> FeedRows | None:
        """All rows above revision `after`, a piece from the start of them, as Arrow: from the disk, or
        from what is staged, never from both. `last` is staged or written. Rows below `complete_from`
        may be missing; None means, as with `events`, that the tables are closed."""
        assert after < last, f"nothing follows {after} up to {last}"
        staged = [s.flush.rows for s in self._staged if s.flush.rows]  # before the disk: as in `rows`
        on_disk = min(last, staged[0][0].main - 1) if staged else last
        if after >= on_disk:
            newest = rows_between(staged, after + 1, last)
            return arrow_of(take_piece(newest, last, last - after, bytes_max))
        return self._feed_from_disk(revisions_between(after + 1, on_disk), on_disk, bytes_max)

    def feed_base(self, after: int, compact_revision: int, bytes_max: int) -> FeedRows | None:
        """Those rows above `after` that a compaction at `compact_revision` leaves of the revisions up to
        it, a piece as in `feed`. They are exact, whether the tables have been rewritten or not, as long
        as `complete_from` is not above `compact_revision`. None also if they are not written yet."""
        if self.revision < compact_revision:
            return None
        sql = base_revisions(after + 1, compact_revision)
        return self._feed_from_disk(sql, compact_revision, bytes_max)

    def _feed_from_disk(self, sql: str, last: int, bytes_max: int) -> FeedRows | None:
        with self._read_lock:
            if self._closed:
                return None
            engine = self._file.new_cursor()
        with closing(engine):
            return read_feed(engine, sql, last, bytes_max)

    def hash_kv(self, revision: int = 0) -> KvHash | None:
        """Hash what is written, up to a revision; 0 is the newest that is written. Takes about 2 s for a
        million rows, during which everything else goes on; at most one at a time, please.

        Raises COMPACTED or FUTURE_REV. None if the tables are closed."""
        with self.reading() as engine:
            return None if engine is None else hash_revisions(engine, revision)

    @contextmanager
    def reading(self) -> Iterator[Engine | None]:
        """A connection for a read that holds no lock, however long it takes, and that goes on through
        a rewrite; None if the tables are closed.

        DuckDB closes every connection of an instance with the first one, so a file that was replaced
        stays open until the last of its readers is done."""
        with self._read_lock:
            file = self._file
            engine = None if self._closed else file.new_cursor()
            file.readers += engine is not None
        if engine is None:
            yield None
            return
        try:
            yield engine
        finally:
            engine.close()
            with self._read_lock:
                file.readers -= 1
                if file.is_retired and not file.readers:
                    file.close(checkpoint=False)

    # --- maintenance ----------------------------------------------------------------------------

    def maintain(self, force: bool = False) -> None:
        """Checkpoint, or give space back to the disk, if either is worth its work; `force` gives back
        what there is at once.

        Writes wait for a checkpoint (about 4 ms a MiB of WAL) and for the end of a rewrite; reads only
        for the instant in which the file changes. On StorageFullError the old file stays in use.
        """
        with self._maintenance_lock:
            if force or self._worth_rewriting():
                self._rewrite()
            elif self._file.wal_bytes() >= TABLES_WAL_BYTES:
                with self._write_lock, self._file.cursor() as engine:
                    engine.execute("CHECKPOINT")
                    sync_directory(self._directory)

    def _worth_rewriting(self) -> bool:
        compact_revision = self.compact_revision
        if self._space.must_count(compact_revision):
            with self._file.cursor() as engine:
                self._space.counted(compact_revision, count_garbage_share(engine, compact_revision))
        return self._space.worth_rewriting(self.size_bytes)

    def _rewrite(self) -> None:
        old = self._file
        with old.cursor() as source:
            rewrite = Rewrite(self._directory, source)
            try:
                rewrite.copy()
                with self._write_lock:
                    reached = rewrite.catch_up()
                    assert reached == self._meta, f"copied up to {reached}, written is {self._meta}"
                    source.close()
                    self._swap(rewrite.builder.finish())
            except BaseException:
                rewrite.builder.abandon()
                raise
        remove_generation(self._directory, old.number)

    def _swap(self, building: Path) -> None:
        """From the rename on a start would find the new file, so nothing may go to the old one:
        whatever fails in here ends the process."""
        try:
            file = TableFile(self._directory, publish(building, self._directory))
            space = Space(file.writer)
        except Exception as e:
            raise StorageFatalError(f"rewritten tables cannot be taken into use: {e}") from e
        space.counted(self.compact_revision, 0.0)
        with self._read_lock:
            self._complete_from = max(self.compact_revision, 1)
            old, self._file, self._space = self._file, file, space
            old.retire(checkpoint=False)

    def export_snapshot(self, directory: Path) -> snapshot.SnapshotFile:
        """Write what is on disk at this moment into one file in `directory`, while writes go on.

        `directory` is on the same filesystem as the tables: the file is built beside them, where the
        next `open` removes what a crash leaves, and renamed. Removing it is up to the caller.
        """
        directory.mkdir(parents=True, exist_ok=True)
        with (
            self._maintenance_lock,
            self._file.cursor() as engine,
            work_directory(self._directory, "export") as work,
        ):
            manifest = export_parquet(engine, work, self.size_bytes)
            path = directory / f"snapshot-{manifest.term}-{manifest.index}.tar"
            size, sha256 = snapshot.pack(path, manifest, work)
        meta = SnapshotMeta(Index(manifest.index), Term(manifest.term), manifest.membership)
        return snapshot.SnapshotFile(path, size, sha256, meta)

    @property
    def name(self) -> str:
        """The file in use, for messages."""
        return str(self._file.path)

    def verifier(self, find_difference: FindDifference) -> Verifier:
        """The background check of these tables. Its steps belong to the maintenance thread."""
        return Verifier(self, find_difference)

    def drop_cache(self) -> bool:
        """Have everything read from the disk again; False, and nothing happens, while somebody reads."""
        with self._maintenance_lock, self._write_lock, self._read_lock:
            if self._closed or self._file.readers:
                return False
            self._file.writer.drop_cache()
            return True

    def close(self) -> None:
        """Close the files. What is staged and not written is forgotten: the log still has it."""
        with self._maintenance_lock, self._write_lock, self._read_lock:
            if not self._closed:
                self._closed = True
                self._file.retire(checkpoint=True)
