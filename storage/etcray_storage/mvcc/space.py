"""How much of the tables is garbage: an estimate that decides when a rewrite is worth its work.

Garbage is what a rewrite would not copy: revisions that the compaction made unnecessary, items that a
newer one of the same key replaced, all meta rows but one. Items and meta rows are counted as they are
written; revisions are counted by a query, and only after the compact revision has moved.
"""

from __future__ import annotations

from typing import Final

from etcray_storage.engine import Engine
from etcray_storage.limits import TABLES_GARBAGE_BYTES_MIN
from etcray_storage.mvcc.rows import StateItem
from etcray_storage.mvcc.schema import NEWEST_ITEMS, needed_revisions

_ROW_BYTES: Final = 64
"""Roughly what an item or a meta row costs beside its value."""


class Space:
    """Counts for one generation: `wrote` under the tables' write lock, the rest from anywhere."""

    def __init__(self, engine: Engine) -> None:
        self._items_bytes: int = engine.query(
            f"SELECT coalesce(sum({_ROW_BYTES} + coalesce(octet_length(value), 0)), 0)::BIGINT FROM items"
        )[0][0]
        live = engine.query(f"SELECT part, key, {_ROW_BYTES} + octet_length(value) FROM ({NEWEST_ITEMS})")
        self._live: dict[tuple[str, bytes], int] = {(part, key): size for part, key, size in live}
        """The size of each item that is not removed."""
        self._live_bytes = sum(self._live.values())
        self._meta_rows: int = engine.query("SELECT count(*) FROM meta")[0][0]
        self._counted_compact_revision = -1
        self._revisions_share = 0.0

    def wrote(self, items: list[StateItem]) -> None:
        """One flush with these items is on disk."""
        self._meta_rows += 1
        for item in items:
            size = _ROW_BYTES + len(item.value or b"")
            self._items_bytes += size
            self._live_bytes -= self._live.pop((item.part, item.key), 0)
            if item.value is not None:
                self._live[(item.part, item.key)] = size
                self._live_bytes += size

    def garbage_bytes(self, size_bytes: int) -> int:
        """Of `size_bytes` on disk. Items count uncompressed, so this may be too high."""
        small = self._items_bytes - self._live_bytes + (self._meta_rows - 1) * _ROW_BYTES
        return min(size_bytes, small + int(size_bytes * self._revisions_share))

    def worth_rewriting(self, size_bytes: int) -> bool:
        garbage = self.garbage_bytes(size_bytes)
        return garbage >= TABLES_GARBAGE_BYTES_MIN and garbage >= size_bytes // 2

    def must_count(self, compact_revision: int) -> bool:
        return compact_revision != self._counted_compact_revision

    def counted(self, compact_revision: int, garbage_share: float) -> None:
        assert 0.0 <= garbage_share <= 1.0, f"a share of {garbage_share}"
        self._counted_compact_revision = compact_revision
        self._revisions_share = garbage_share


def count_garbage_share(engine: Engine, compact_revision: int) -> float:
    """Which part of all revisions a compaction makes unnecessary. About 0.3 s for a million rows."""
    ((total,),) = engine.query("SELECT count(*) FROM revisions")
    ((needed,),) = engine.query(f"SELECT count(*) FROM ({needed_revisions(compact_revision)})")
    return float((total - needed) / total) if total else 0.0
