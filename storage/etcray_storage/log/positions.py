"""Where each entry of the log is, in memory.

Rows that replace a conflicting suffix are appended like all others, so several rows may hold an entry
of the same index: the last one counts. `Positions` keeps, of each row that still counts for something,
its first index and its place; a row's entries reach to the first index of the next row. Terms never
go back along a log, so they are kept as runs. The newest entries themselves are kept too, up to a
number of bytes. Nothing here knows about files; the caller holds a lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from etcray_storage.types import Entry, Index, Term


class Place(NamedTuple):
    """Entries `first` to `last`, within one row."""

    segment: int
    row: int
    """Position of the row within its segment."""
    first: Index
    last: Index
    bytes: int
    """Of the whole row's payload."""


class Positions:
    def __init__(self, cache_bytes_max: int) -> None:
        self.base_index = Index(0)
        self.base_term = Term(0)
        self.last_index = Index(0)
        self.last_term = Term(0)
        # One item a row, ascending and parallel. The first row may begin at or below the base.
        self._row_firsts: list[Index] = []
        self._row_places: list[tuple[int, int, int]] = []
        # One item a run of entries of the same term, ascending and parallel.
        self._run_firsts: list[Index] = []
        self._run_terms: list[Term] = []
        self._cache: dict[Index, Entry] = {}
        """A contiguous run that ends with the last entry."""
        self._cache_first = Index(1)
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max

    def append(self, entries: tuple[Entry, ...], segment: int, row: int, payload_bytes: int) -> None:
        """Note the entries of a new row; everything from the first of them on is replaced."""
        first = entries[0].index
        assert self.base_index < first <= self.last_index + 1, (
            f"row begins at {first}, log is {self.base_index + 1}..{self.last_index}"
        )
        if first <= self.last_index:
            self._truncate(first)
        self._row_firsts.append(first)
        self._row_places.append((segment, row, payload_bytes))
        term = self.last_term if first > self.base_index + 1 else None
        for entry in entries:
            if entry.term != term:
                assert entry.term >= self.last_term, f"term goes back at {entry.index}: {entry.term}"
                term = entry.term
                self._run_firsts.append(entry.index)
                self._run_terms.append(term)
                self.last_term = term
            self._cache[entry.index] = entry
            self._cache_bytes += len(entry.data)
        self.last_index = entries[-1].index
        self._trim_cache()

    def compact(self, through: Index, term: Term) -> None:
        """Forget the entries up to and including `through`, whose term is given."""
        assert self.base_index <= through <= self.last_index, (
            f"compaction through {through}, log is {self.base_index + 1}..{self.last_index}"
        )
        keep = bisect_right(self._row_firsts, through + 1) - 1
        if through == self.last_index:
            keep = len(self._row_firsts)
        del self._row_firsts[: max(keep, 0)]
        del self._row_places[: max(keep, 0)]
        runs = bisect_right(self._run_firsts, through + 1) - 1
        if through == self.last_index:
            runs = len(self._run_firsts)
        del self._run_firsts[: max(runs, 0)]
        del self._run_terms[: max(runs, 0)]
        self._evict(through)
        self.base_index, self.base_term = through, term

    def reset(self, index: Index, term: Term) -> None:
        """Become an empty log after the entry (index, term)."""
        self.base_index, self.base_term = index, term
        self.last_index, self.last_term = index, term
        for items in (self._row_firsts, self._row_places, self._run_firsts, self._run_terms, self._cache):
            items.clear()
        self._cache_first, self._cache_bytes = Index(index + 1), 0

    def term(self, index: Index) -> Term:
        """Term of a stored entry, or of the base."""
        assert self.base_index <= index <= self.last_index, (
            f"no entry {index} in {self.base_index}..{self.last_index}"
        )
        if index == self.base_index:
            return self.base_term
        return self._run_terms[bisect_right(self._run_firsts, index) - 1]

    def first_within(self, bytes_max: int) -> Index:
        """From where on the newest rows take at most `bytes_max` together; after the end if the last
        row alone is larger."""
        first, total = Index(self.last_index + 1), 0
        for row_first, (_, _, size) in zip(
            reversed(self._row_firsts), reversed(self._row_places), strict=True
        ):
            total += size
            if total > bytes_max:
                break
            first = Index(max(row_first, self.base_index + 1))
        return first

    def first_segment(self) -> int | None:
        """The oldest segment that holds an entry that counts; None when the log is empty."""
        return self._row_places[0][0] if self._row_places else None

    def cached(self, first: Index, last: Index, bytes_max: int) -> list[Entry] | None:
        """Entries from memory: at least one, then up to bytes_max. None when the first is not there."""
        if first < self._cache_first:
            return None
        entries: list[Entry] = []
        size = 0
        for index in range(first, last + 1):
            entry = self._cache[Index(index)]
            size += len(entry.data)
            if size > bytes_max and entries:
                break
            entries.append(entry)
        return entries

    def places(self, first: Index, last: Index, bytes_max: int) -> list[Place]:
        """Rows that hold the entries from `first` on, all of one segment, in the order of the log: at
        least one, then up to about bytes_max of payload."""
        at = bisect_right(self._row_firsts, first) - 1
        segment = self._row_places[at][0]
        places: list[Place] = []
        size = 0
        while first <= last and at < len(self._row_firsts):
            row_segment, row, row_bytes = self._row_places[at]
            size += row_bytes
            if places and (row_segment != segment or size > bytes_max):
                break
            following = self._row_firsts[at + 1] if at + 1 < len(self._row_firsts) else self.last_index + 1
            places.append(Place(segment, row, first, Index(min(following - 1, last)), row_bytes))
            first = Index(following)
            at += 1
        return places

    def _truncate(self, first: Index) -> None:
        rows = bisect_left(self._row_firsts, first)
        del self._row_firsts[rows:]
        del self._row_places[rows:]
        runs = bisect_left(self._run_firsts, first)
        del self._run_firsts[runs:]
        del self._run_terms[runs:]
        for index in range(max(first, self._cache_first), self.last_index + 1):
            self._cache_bytes -= len(self._cache.pop(Index(index)).data)
        self._cache_first = min(self._cache_first, first)
        self.last_index = Index(first - 1)
        self.last_term = self.term(self.last_index)

    def _trim_cache(self) -> None:
        while self._cache_bytes > self._cache_bytes_max:
            self._evict(self._cache_first)

    def _evict(self, through: Index) -> None:
        for index in range(self._cache_first, through + 1):
            self._cache_bytes -= len(self._cache.pop(Index(index)).data)
        self._cache_first = Index(max(self._cache_first, through + 1))
