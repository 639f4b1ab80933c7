"""Pieces of the past for watchers: whole revisions, in order, up to a limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from etcray_storage.mvcc.rows import RevisionRow

ROW_BYTES: Final = 100
"""What a row takes beside its key and value, about."""


class EventRows(NamedTuple):
    """Rows of a range of keys, ordered by (main, sub)."""

    rows: list[RevisionRow]
    through: int
    """The rows up to this revision are complete."""


def in_range(name: bytes, key: bytes, range_end: bytes) -> bool:
    """Whether a range of a request holds a key. As there, an empty end means the single key, and one
    zero byte means everything from `key` on."""
    if not range_end:
        return name == key
    return name >= key and (range_end == b"\0" or name < range_end)


def take_piece(rows: Iterable[RevisionRow], last: int, revisions_max: int, bytes_max: int) -> EventRows:
    """Take whole revisions from `rows`, which end with revision `last`, until a limit is reached.
    At least one revision is taken, however large it is."""
    assert revisions_max > 0, f"a piece of {revisions_max} revisions"
    taken: list[RevisionRow] = []
    revisions, size, main = 0, 0, 0
    for row in rows:
        if row.main != main:
            assert row.main > main, f"revision {row.main} behind {main}"
            if revisions == revisions_max or (revisions and size >= bytes_max):
                return EventRows(taken, row.main - 1)
            revisions += 1
            main = row.main
        taken.append(row)
        size += len(row.key) + len(row.value) + ROW_BYTES
    return EventRows(taken, last)
