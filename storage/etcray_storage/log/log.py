"""The log of one member: appends, reads, compaction, reset.

Locks, in the order in which they may be taken. `_append_lock`: whoever writes rows. `_spare_lock`: the
prepared segment. `_files_lock`: checkpoints and removal of segments. `_read_lock`: reads from disk, and
against them the moment when a segment is detached. `_lock`: the fields in memory, never held over I/O.
Each of the four roles has its own connection, because threads do not share one.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etcray_storage import limits
from etcray_storage.engine import Engine, sync_directory
from etcray_storage.errors import StorageCorruptError, StorageFatalError, StorageFullError
from etcray_storage.log.positions import Place
from etcray_storage.log.record import (
    FORMAT,
    Record,
    SegmentHeader,
    Sequence,
    decode_entries,
    encode_entries,
    encode_header,
    make_row,
)
from etcray_storage.log.recovery import Recovered, recover, remove_void_files, sync_files
from etcray_storage.log.segment import Segment, remove_spare, segment_numbers
from etcray_storage.log.tip import TipFile
from etcray_storage.log.verification import Verifier
from etcray_storage.types import Entry, HardState, Index, Term

_TIP_NAME = "tip"


class CompactedError(Exception):
    """The entry was compacted: who asked for it needs a snapshot instead."""

    def __init__(self, index: Index, base_index: Index) -> None:
        super().__init__(f"entry {index} is compacted, the log begins after {base_index}")
        self.index = index
        self.base_index = base_index


class Log:
    """Open it with `Log.open`. `append` and `reset` belong to the writer's thread, `maintain` and
    `compact` to one in the background; everything else may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        engine: Engine,
        tip_file: TipFile,
        recovered: Recovered,
        segment_bytes: int,
        segment_rows: int,
    ) -> None:
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._segment_rows = segment_rows
        self._tip_file = tip_file
        self._engine = engine
        self._engine.execute("PRAGMA disable_optimizer")  # a fifth of an INSERT's CPU; for this connection
        self._spare_engine = engine.cursor()
        self._files_engine = engine.cursor()
        self._read_engine = engine.cursor()
        self._append_lock = threading.Lock()
        self._spare_lock = threading.Lock()
        self._files_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        """Once set, nothing is known about the files any more, and every call raises."""
        self._closed = False
        self._positions = recovered.positions
        self._replacements = 0
        """Counts rows that replaced entries, for readers that need several reads."""
        self._hard_state = recovered.hard_state
        self._sequence = recovered.sequence
        self._checksum = recovered.checksum
        self._spare = recovered.spare
        self._segments = {segment.number: segment for segment in recovered.segments}
        """All begun segments, by ascending number; the last one is written to."""
        self.is_new = not self._segments
        """It was created by this `open`: nothing was ever promised from this directory."""
        if self.is_new:
            self._begin_segment(self.hard_state, Index(0), Term(0), resets=True)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        segment_bytes: int = limits.LOG_SEGMENT_BYTES,
        segment_rows: int = limits.LOG_SEGMENT_ROWS,
        cache_bytes: int = limits.LOG_CACHE_BYTES,
        is_synced: bool = True,
    ) -> Log:
        """Create the log of an empty or missing directory, or recover the one that is there.

        The caller holds the data directory's lock. Raises StorageCorruptError (a file is damaged or
        missing; nothing was changed), DataDirectoryError (a newer format).

        If not `is_synced`, an append hands its row to the operating system and does not wait for the disk:
        it survives the end of the process, not a power loss. The tip is synced all the same, so that what
        a power loss took is found, as far as the tip had come."""
        if not directory.exists():
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)
        sync_files(directory)
        remove_spare(directory)
        tip_file = _open_tip(directory)
        engine = Engine.open(None, limits.LOG_MEMORY_MIB, checkpoint_on_close=False, is_synced=is_synced)
        try:
            tip = tip_file.tip
            remove_void_files(directory, tip.first_segment)
            recovered = recover(engine, directory, tip, cache_bytes)
            if recovered.sequence > tip.sequence:
                positions = recovered.positions
                end = (positions.last_index, positions.last_term)
                tip_file.advance(recovered.sequence, recovered.checksum, *end)
            log = cls(directory, engine, tip_file, recovered, segment_bytes, segment_rows)
            log._rebase()  # finishes a reset or a compaction that a crash cut short
        except BaseException:
            engine.close()
            tip_file.close()
            raise
        return log

    # --- what it holds --------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def base_index(self) -> Index:
        return self._positions.base_index

    @property
    def base_term(self) -> Term:
        return self._positions.base_term

    @property
    def first_index(self) -> Index:
        return Index(self._positions.base_index + 1)

    @property
    def last_index(self) -> Index:
        return self._positions.last_index

    def term(self, index: Index) -> Term:
        """Term of an entry, or of the base. Raises CompactedError below the base."""
        with self._lock:
            self._check(index, self._positions.base_index)
            return self._positions.term(index)

    def first_within(self, bytes_max: int) -> Index:
        """The first of the newest entries that take at most `bytes_max`: what a compaction by size
        keeps. After the last entry if that alone is larger."""
        with self._lock:
            return self._positions.first_within(bytes_max)

    def entries(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """Entries from `first` to at most `last`: at least one, then until their data would pass
        bytes_max. Raises CompactedError if `first` is compacted.

        All are of one moment: if a conflict replaces some while they are read, those read before it
        are given, and none if that is none."""
        assert first <= last, f"no entries in {first}..{last}"
        with self._lock:
            self._check(first, self.first_index)
            assert last <= self.last_index, f"entry {last} is beyond the last, {self.last_index}"
            cached = self._positions.cached(first, last, bytes_max)
            replacements = self._replacements
        if cached is not None:
            return cached
        entries: list[Entry] = []
        size = 0
        index = first
        while index <= last and (size <= bytes_max or not entries):
            part = self._read(index, last, bytes_max - size, replacements)
            for entry in part:
                size += len(entry.data)
                if size > bytes_max and entries:
                    return entries
                entries.append(entry)
            if not part:
                break
            index = Index(index + len(part))
        return entries

    def _read(self, first: Index, last: Index, bytes_max: int, replacements: int) -> list[Entry]:
        """Some of the entries from `first` on, from disk; none if some were replaced. The places are
        looked up and read under one lock, so that no compaction detaches the segment in between."""
        with self._read_lock:
            with self._lock:
                if self._replacements != replacements:
                    return []
                self._check(first, self.first_index)
                places = self._positions.places(first, last, bytes_max)
                segment = self._segments[places[0].segment]
            with self._poisoning():
                payloads = segment.payloads(self._read_engine, places[0].row, places[-1].row)
        return _entries_of(places, payloads)

    # --- writing --------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Make a record durable, in one commit.

        Raises StorageFullError: nothing was changed, and a later append may succeed. Raises
        StorageFatalError: what is on disk is unknown, and so it does from then on."""
        with self._append_lock:
            self._check_usable()
            entries = record.entries
            self._check_record(record)
            segment = self._active
            if segment.rows >= self._segment_rows or segment.bytes >= self._segment_bytes:
                end = (self._positions.last_index, self._positions.last_term)
                segment = self._begin_segment(self._hard_state, *end, resets=False)
            first = entries[0].index if entries else Index(self.last_index + 1)
            last = entries[-1].index if entries else self.last_index
            payload = encode_entries(entries) if entries else b""
            self._insert(segment, record.hard_state, first, last, payload)
            with self._lock:
                self._hard_state = record.hard_state
                if entries:
                    self._replacements += first <= self.last_index
                    self._positions.append(entries, segment.number, segment.rows - 1, len(payload))
            self._advance_tip()

    def reset(self, index: Index, term: Term, hard_state: HardState) -> None:
        """Become an empty log whose base is the last entry of an installed snapshot. All or nothing:
        after a crash the log is either what it was or what it became. Raises as `append` does."""
        with self._append_lock:
            self._check_usable()
            assert index >= self.base_index, f"reset to {index}, below the base {self.base_index}"
            assert hard_state.term >= self._hard_state.term, f"term goes back to {hard_state.term}"
            self._begin_segment(hard_state, index, term, resets=True)
            self._rebase()

    def compact(self, through: Index) -> None:
        """Forget all entries up to and including `through`, and remove the segments that only held
        such entries. Below the base there is nothing to do."""
        self._check_usable()
        with self._lock:
            if through <= self.base_index:
                return
            assert through <= self.last_index, f"compaction through {through}, the last is {self.last_index}"
            self._positions.compact(through, self._positions.term(through))
        self._rebase()

    def maintain(self) -> None:
        """Everything that appends should not wait for: sync the tip, prepare the next segment,
        checkpoint closed ones. To be called often (every 100 ms) from one background thread."""
        self._check_usable()
        with self._poisoning():
            self._tip_file.sync()
        with self._spare_lock:
            active = self._active
            half_full = active.rows * 2 >= self._segment_rows or active.bytes * 2 >= self._segment_bytes
            if half_full and self._spare is None and self._has_space(0):
                self._spare = self._create_segment()
        with self._files_lock:
            with self._lock:
                closed = [s for s in self._segments.values() if s is not self._active and not s.checkpointed]
            for segment in closed:
                if self._has_space(2 * segment.bytes):
                    with self._poisoning():
                        segment.checkpoint(self._files_engine)

    def verifier(self) -> Verifier:
        """The background check of the log. Its steps belong to one thread, which may be any."""
        return Verifier(self)

    @contextmanager
    def reading_segments(self) -> Iterator[tuple[Engine, list[Segment]] | None]:
        """All begun segments, ascending, and a connection to read them on; none is removed meanwhile.
        None if the log is closed. For the verifier; reads of others wait."""
        with self._read_lock:
            with self._lock:
                segments = None if self._closed else list(self._segments.values())
            yield None if segments is None else (self._read_engine, segments)

    def drop_cache(self) -> None:
        """Have everything read from the disk again. Appends wait for some milliseconds."""
        with self._append_lock, self._spare_lock, self._files_lock, self._read_lock:
            if not self._closed:
                self._read_engine.drop_cache()

    def close(self) -> None:
        """Sync the tip and close the files. Idempotent."""
        with self._append_lock, self._spare_lock, self._files_lock, self._read_lock, self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                for engine in (self._read_engine, self._files_engine, self._spare_engine, self._engine):
                    engine.close()
            finally:
                self._tip_file.close()

    # --- segments -------------------------------------------------------------------------------

    @property
    def _active(self) -> Segment:
        return self._segments[next(reversed(self._segments))]

    def _begin_segment(
        self, hard_state: HardState, base_index: Index, base_term: Term, *, resets: bool
    ) -> Segment:
        """Go on in a new segment. Its first row repeats the hard state, so that the segments before
        it can be removed."""
        with self._spare_lock:
            segment = self._spare or self._create_segment()
            self._spare = segment  # until it is begun: it stays the spare if there is no space
            header = SegmentHeader(FORMAT, segment.number, base_index, base_term, self._checksum, resets)
            first = Index(base_index + 1)
            self._insert(segment, hard_state, first, base_index, encode_header(header))
            self._spare = None
        with self._lock:
            self._segments[segment.number] = segment
            self._hard_state = hard_state
            if resets:
                self._replacements += 1
                self._positions.reset(base_index, base_term)
        # The first commit created the WAL. From here on its loss would be noticed.
        with self._poisoning():
            sync_directory(self.directory)
        self._advance_tip()
        with self._poisoning():
            self._tip_file.sync()
        return segment

    def _create_segment(self) -> Segment:
        number = max(segment_numbers(self.directory), default=self._tip_file.tip.first_segment - 1) + 1
        with self._poisoning():
            return Segment.create(self._spare_engine, self.directory, number)

    def _rebase(self) -> None:
        """Write down the base, durably, then remove the segments that it makes void."""
        with self._files_lock:
            with self._lock:
                needed = self._positions.first_segment() or self._active.number
                void = [segment for number, segment in self._segments.items() if number < needed]
                base = (self._positions.base_index, self._positions.base_term)
            tip = self._tip_file.tip
            if (*base, needed) != (tip.base_index, tip.base_term, tip.first_segment):
                with self._poisoning():
                    self._tip_file.rebase(*base, needed)
            if not void:
                return
            with self._read_lock, self._poisoning():
                for segment in void:
                    with self._lock:
                        del self._segments[segment.number]
                    segment.drop(self._files_engine)
                sync_directory(self.directory)

    def _has_space(self, needed_bytes: int) -> bool:
        """A checkpoint that finds no space invalidates the whole instance, so it is not begun when
        it might not. Neither is a segment."""
        return shutil.disk_usage(self.directory).free > needed_bytes + limits.LOG_FREE_BYTES_MIN

    # --- checks ---------------------------------------------------------------------------------

    def _insert(
        self, segment: Segment, hard_state: HardState, first: Index, last: Index, payload: bytes
    ) -> None:
        row = make_row(Sequence(self._sequence + 1), hard_state, first, last, payload, self._checksum)
        with self._poisoning(segment):
            segment.insert(self._engine, row)
        self._sequence, self._checksum = row.sequence, row.checksum

    def _advance_tip(self) -> None:
        positions = self._positions
        with self._poisoning():
            self._tip_file.advance(self._sequence, self._checksum, positions.last_index, positions.last_term)

    @contextmanager
    def _poisoning(self, segment: Segment | None = None) -> Iterator[None]:
        """Turn any failure into StorageFatalError, now and from now on. Only a full disk is let
        through, after a look at the segment: the row must not be there."""
        try:
            yield
        except StorageFullError as e:
            if segment is not None:
                with self._poisoning():
                    stored = segment.stored_rows(self._engine)
                if stored != segment.rows:
                    self._failure = e
                    raise StorageFatalError(
                        f"{segment.path}: no space, and {stored} rows where {segment.rows} were expected; "
                        "free some space and start the member again"
                    ) from e
            raise
        except Exception as e:
            self._failure = e
            raise StorageFatalError(f"{self.directory}: {e}") from e

    def _check_usable(self) -> None:
        assert not self._closed, f"log {self.directory} is closed"
        if self._failure is not None:
            raise StorageFatalError(
                f"{self.directory}: not usable after a failure; start the member again: {self._failure}"
            ) from self._failure

    def _check(self, index: Index, lowest: Index) -> None:
        self._check_usable()
        if index < lowest:
            raise CompactedError(index, self.base_index)
        assert index <= self.last_index, f"entry {index} is beyond the last, {self.last_index}"

    def _check_record(self, record: Record) -> None:
        old, new, entries = self._hard_state, record.hard_state, record.entries
        assert new.term >= old.term, f"term goes back from {old.term} to {new.term}"
        assert new.commit >= old.commit, f"commit goes back from {old.commit} to {new.commit}"
        if not entries:
            return
        first = entries[0].index
        assert self.base_index < first <= self.last_index + 1, (
            f"record begins at {first}, the log is {self.first_index}..{self.last_index}"
        )
        assert entries[-1].index - first == len(entries) - 1, f"entries from {first} on are not contiguous"


def _open_tip(directory: Path) -> TipFile:
    path = directory / _TIP_NAME
    if path.exists():
        return TipFile.open(path)
    if segment_numbers(directory):
        raise StorageCorruptError(
            f"{path}: expected the record of the log's end beside its segments, found no file; "
            "replace this member (remove it from the cluster, then add it with an empty directory)"
        )
    return TipFile.create(path)


def _entries_of(places: list[Place], payloads: dict[int, bytes]) -> list[Entry]:
    entries: list[Entry] = []
    for place in places:
        stored = decode_entries(payloads[place.row])
        skip = place.first - stored[0].index
        entries.extend(stored[skip : skip + place.last - place.first + 1])
    return entries
