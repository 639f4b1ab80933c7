"""The log as the core sees it: the durable log below, its newest entries and its own ends in memory.

                base                 stable           handed out      last
    ... compacted | durable            |  with the writer  |  new      |
                           applied <= committed

Every entry after `stable_index` is in memory, because the durable log does not have it yet or still
has another one in its place. Older entries stay in memory while there is room (`log_cache_bytes`);
what is not there is read from the durable log.

Records become durable in the order in which they were handed out, and each one is reported once. A
report must not vouch for an entry that replaced what the record held. Comparing terms is not enough:

1. Entry 5 of term 1 is handed to the writer.
2. A leader of term 2 replaces it with its own entry 5, which is handed out too.
3. The leader of term 3 has the entry 5 of term 1, and replaces it again: a third record.
4. The first record becomes durable: "5 of term 1". That is just what the log says, but the second
   record is next, and a crash after it leaves the entry of term 2 on disk.

So each record remembers how often the log had been rewritten when it was handed out, and its report
counts only if that has not changed. Nothing is lost: a rewrite is always followed by a newer record.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from etcray_storage.types import Entry, EntryKind, Index, SnapshotMeta, Term

ENTRY_OVERHEAD_BYTES: Final = 128
"""What an entry costs in memory besides its data, roughly."""


class LogReader(Protocol):
    """The durable log. Read only up to the stable index: what comes after it may be rewritten."""

    @property
    def base_index(self) -> Index:
        """The last compacted entry; 0 if there is none."""

    @property
    def base_term(self) -> Term: ...

    @property
    def last_index(self) -> Index: ...

    def term(self, index: Index) -> Term:
        """Of an entry from `base_index` to `last_index`, both included."""

    def entries(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """From `first`, at least one, at most up to `last` or to `bytes_max` of data."""


class RaftLog:
    def __init__(self, reader: LogReader, cache_bytes_max: int) -> None:
        self._reader = reader
        self._cache_bytes_max = cache_bytes_max
        self._cache: list[Entry] = []
        self._cache_first = Index(reader.last_index + 1)
        self._cache_bytes = 0
        self._rewrites = 0
        self._in_flight: deque[tuple[Index, Term, int]] = deque()
        self.base_index: Index = reader.base_index
        self.base_term: Term = reader.base_term
        self.last_index: Index = reader.last_index
        self.last_term: Term = reader.term(reader.last_index)
        self.stable_index: Index = self.last_index
        """Entries up to here are durable on this member; <= handed_index."""
        self.handed_index: Index = self.last_index
        """Entries up to here were handed out to be made durable; <= last_index."""
        self.changes: deque[Index] = deque()
        """MEMBERSHIP entries that are not known to be applied, oldest first: see membership.py."""

    def find_changes(self, applied: Index, bytes_max: int) -> None:
        """Look for MEMBERSHIP entries after `applied` in what a restarted member finds."""
        index = applied
        while index < self.last_index:
            entries = self.entries(Index(index + 1), self.last_index, bytes_max)
            self._note_changes(entries)
            index = entries[-1].index

    def _note_changes(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.kind is EntryKind.MEMBERSHIP:
                self.changes.append(entry.index)

    def term(self, index: Index) -> Term | None:
        """None if the entry is compacted or does not exist."""
        if index > self.last_index or index < self.base_index:
            return None
        if index >= self._cache_first:
            return self._cache[index - self._cache_first].term
        if index == self.base_index:
            return self.base_term
        return self._reader.term(index)

    def matches(self, index: Index, term: Term) -> bool:
        """Whether this log has that very entry. By the Log Matching property (5.3) everything
        before it is then the same as well."""
        return self.term(index) == term

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log with this end is at least as up to date as this one (5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def entries(self, first: Index, last: Index, bytes_max: int) -> Sequence[Entry]:
        """At least one entry from `first`; fewer than asked for if they are too large together, or
        if some are in memory and some are not."""
        assert self.base_index < first <= last <= self.last_index, (
            f"entries {first}..{last} of a log with {self.base_index + 1}..{self.last_index}"
        )
        if first < self._cache_first:
            return self._reader.entries(first, Index(min(last, self._cache_first - 1)), bytes_max)
        start = first - self._cache_first
        if first == last:
            return self._cache[start : start + 1]
        end, size = start + 1, len(self._cache[start].data)
        stop = last - self._cache_first + 1
        while end < stop:
            size += len(self._cache[end].data)
            if size > bytes_max:
                break
            end += 1
        return self._cache[start:end]

    def first_index_of_term_at(self, index: Index, at_least: Index) -> Index:
        """The first entry with the term of the one at `index`, looking back to `at_least`. Terms
        never fall along the log, so this is a binary search."""
        assert self.base_index < at_least <= index <= self.last_index, f"{at_least}..{index}"
        term = self._term_known(index)
        span = range(at_least, index + 1)
        return Index(span[bisect_left(span, term, key=self._term_known)])

    def last_index_of_term(self, term: Term, at_most: Index) -> Index | None:
        """The last entry with this term up to `at_most`, if there is one."""
        span = range(self.base_index, min(at_most, self.last_index) + 1)
        position = bisect_right(span, term, key=self._term_known)
        if position == 0 or self._term_known(span[position - 1]) != term:
            return None
        return Index(span[position - 1])

    def _term_known(self, index: int) -> Term:
        term = self.term(Index(index))
        assert term is not None, f"no entry {index} in {self.base_index}..{self.last_index}"
        return term

    # --- growing --------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries at the end, or in the place of all entries from the first one's index on.
        The caller answers for it that none of those is committed."""
        first = entries[0].index
        assert self.base_index < first <= self.last_index + 1, (
            f"append at {first} leaves a gap after {self.last_index} or is compacted"
        )
        if first <= self.last_index:
            self._cut_before(first)
        self._note_changes(entries)
        self._cache.extend(entries)
        self._cache_bytes += sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries)
        self.last_index = entries[-1].index
        self.last_term = entries[-1].term
        if self._cache_bytes > self._cache_bytes_max:
            self._evict()

    def _cut_before(self, first: Index) -> None:
        if first > self._cache_first:
            gone = self._cache[first - self._cache_first :]
            del self._cache[first - self._cache_first :]
            self._cache_bytes -= sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in gone)
        else:
            self._cache.clear()
            self._cache_first = first
            self._cache_bytes = 0
        self.stable_index = min(self.stable_index, Index(first - 1))
        self.handed_index = min(self.handed_index, Index(first - 1))
        while self.changes and self.changes[-1] >= first:
            self.changes.pop()
        self._rewrites += 1

    def _evict(self) -> None:
        """Drop the oldest durable entries; an eighth more than needed, so that this is rare."""
        target = self._cache_bytes_max * 7 // 8
        removable = max(0, self.stable_index - self._cache_first + 1)
        count = 0
        while count < removable and self._cache_bytes > target:
            self._cache_bytes -= len(self._cache[count].data) + ENTRY_OVERHEAD_BYTES
            count += 1
        del self._cache[:count]
        self._cache_first = Index(self._cache_first + count)

    # --- durability -----------------------------------------------------------------------

    def hand_out(self) -> tuple[Entry, ...]:
        """The entries that nobody has been asked to make durable yet."""
        if self.handed_index == self.last_index:
            return ()
        entries = tuple(self._cache[self.handed_index + 1 - self._cache_first :])
        self.handed_index = self.last_index
        self._in_flight.append((self.last_index, self.last_term, self._rewrites))
        return entries

    def stable_to(self, index: Index, term: Term) -> bool:
        """The oldest handed out record, which ends with this entry, is durable. Returns whether
        the stable index moved."""
        assert self._in_flight, f"entry {index} of term {term} was never handed out"
        last_index, last_term, rewrites = self._in_flight.popleft()
        assert (last_index, last_term) == (index, term), (
            f"record ending with {index} of term {term} reported, {last_index} of {last_term} is next"
        )
        if rewrites != self._rewrites:
            return False
        assert self.stable_index < index <= self.handed_index, (
            f"stable {self.stable_index}, reported {index}, handed out {self.handed_index}"
        )
        self.stable_index = index
        return True

    # --- the prefix -----------------------------------------------------------------------

    def compact_to(self, index: Index) -> None:
        """Forget the entries up to `index`, keeping the term of the last one."""
        if index <= self.base_index:
            return
        assert index <= self.stable_index, f"compaction to {index}, stable {self.stable_index}"
        assert not self.changes or index < self.changes[0], (
            f"compaction to {index}, but the membership of {self.changes[0]} is not reported"
        )
        self.base_term = self._term_known(index)
        self.base_index = index
        count = index - self._cache_first + 1
        if count > 0:
            gone = self._cache[:count]
            del self._cache[:count]
            self._cache_first = Index(index + 1)
            self._cache_bytes -= sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in gone)

    def restore(self, meta: SnapshotMeta) -> None:
        """The whole log was replaced by a snapshot."""
        self._cache.clear()
        self._cache_bytes = 0
        self._cache_first = Index(meta.index + 1)
        self.changes.clear()
        self._rewrites += 1
        self.base_index = self.last_index = self.stable_index = self.handed_index = meta.index
        self.base_term = self.last_term = meta.term
