"""Flushes on their way to the disk: handed over by the state machine, not written yet, but to be found."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter

from etcray_storage.mvcc.rows import Flush, Point, RevisionRow

_main_of = attrgetter("main")


class Staged:
    """One flush. The index by point is only built if somebody asks for one."""

    def __init__(self, flush: Flush) -> None:
        self.flush = flush
        self._by_point: dict[tuple[bytes, int], RevisionRow] | None = None

    def get(self, point: Point) -> RevisionRow | None:
        rows = self.flush.rows
        if not rows or not rows[0].main <= point.main <= rows[-1].main:
            return None
        if self._by_point is None:
            self._by_point = {(row.key, row.main): row for row in rows}
        return self._by_point.get((point.key, point.main))


def rows_between(staged: list[list[RevisionRow]], first: int, last: int) -> Iterator[RevisionRow]:
    """The rows of some revisions, both included, of flushes in their order."""
    for rows in staged:
        for position in range(bisect_left(rows, first, key=_main_of), len(rows)):
            row = rows[position]
            if row.main > last:
                return
            yield row
