"""Beginning again at a revision that the members still have, when they have compacted what came next.

What they have is the state at their compact revision, C: every row that a compaction at C leaves. What the
history has ends earlier, at its position, P. In between lies a gap: of the revisions from P + 1 to C - 1
some rows are still there, and others are not, so no state in there is known. Two things have to be right:

- From C on every state is known again. A key that was there at P and was deleted in the gap has no row in
  the base, and its old row must not shine through. So each such key gets a deletion at C, with the sub
  revision -1, which no real change has. When it really was deleted, nobody knows any more.
- What the history has up to P stays, untouched.

All of it counts at once, with the manifest, or not at all: a builder that is dropped leaves files that
nothing names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as compute

from etcray_storage.history.manifest import PARTS, Part
from etcray_storage.history.parts import COLUMNS, ROWS_DDL, quoted_list, write_part
from etcray_storage.history.rows import LOST_DELETION_SUB, ROWS_SCHEMA, Gap
from etcray_storage.history.tail import above
from etcray_storage.limits import HISTORY_TAIL_BYTES_MAX, HISTORY_TAIL_ROWS_MAX

if TYPE_CHECKING:
    from etcray_storage.history.store import HistoryStore


class BaseBuilder:
    """Takes the rows of a base and makes parts of them. Used on the store's thread, and nothing else of the
    store is used meanwhile but reading."""

    def __init__(self, store: HistoryStore, compact_revision: int) -> None:
        self._store = store
        self._engine = store.engine
        self._position = store.position
        self._compact_revision: Final = compact_revision
        self._parts: list[Part] = []
        self._rows = 0
        self._bytes = 0
        """Of what is staged for the next part."""
        self._through = store.position
        """The newest revision that was staged."""
        self._time_ms = 0
        self._engine.execute(f"CREATE OR REPLACE TABLE staged ({ROWS_DDL})")
        self._engine.execute("CREATE OR REPLACE TABLE base_keys (key BLOB)")

    def add(self, rows: pa.Table) -> None:
        """The next rows, ordered by (main, sub): all rows of revisions up to the compact revision that a
        compaction at it leaves. Rows that the history has are told again: they say what is still there."""
        if not rows.num_rows:
            return
        last = compute.max(rows["main"]).as_py()
        assert last <= self._compact_revision, f"a row at {last} in a base at {self._compact_revision}"
        assert rows.schema.equals(ROWS_SCHEMA), f"rows of another shape: {rows.schema}"
        self._time_ms = max(self._time_ms, compute.max(rows["time_ms"]).as_py())
        self._engine.insert("base_keys", rows.select(["key"]))
        new = above(rows, self._position)
        if not new.num_rows:
            return
        first = new["main"][0].as_py()
        full = self._rows >= HISTORY_TAIL_ROWS_MAX or self._bytes >= HISTORY_TAIL_BYTES_MAX
        if full and first > self._through:  # parts do not overlap, so a revision is in one of them
            self._write()
        self._engine.insert("staged", new)
        self._rows += new.num_rows
        self._bytes += new.nbytes
        self._through = max(self._through, last)

    def finish(self) -> None:
        """Let the base count: the position becomes the compact revision."""
        store, engine = self._store, self._engine
        own = store.write_tail()
        before = (*store.manifest.parts, *(() if own is None else (own,)))
        if before:
            files = [str(store.directory / PARTS / part.name) for part in before]
            engine.execute(
                f"""INSERT INTO staged
                SELECT ?, {LOST_DELETION_SUB}, key, ''::BLOB, 0, 0, 0, true, ?, ''
                FROM (SELECT key FROM read_parquet({quoted_list(files)}) GROUP BY key
                      HAVING NOT arg_max(tombstone, main)) ANTI JOIN base_keys USING (key)""",
                [self._compact_revision, self._time_ms],
            )
        self._through = self._compact_revision
        self._write()
        gap = Gap(self._position + 1 if before else 1, self._compact_revision - 1)
        gaps = store.manifest.gaps + ((gap,) if gap.first <= gap.last else ())
        store.commit((*before, *self._parts), gaps, self._compact_revision)
        self.abort()

    def abort(self) -> None:
        """Forget it. The files of a builder that did not finish go with the next start."""
        self._engine.execute("DROP TABLE IF EXISTS staged")
        self._engine.execute("DROP TABLE IF EXISTS base_keys")

    def _write(self) -> None:
        first = self._parts[-1].last_revision + 1 if self._parts else self._position + 1
        name = f"{self._store.manifest.sequence:08}-{first}-{self._through}.parquet"
        part = write_part(self._engine, "staged", self._store.directory, name, first, self._through)
        if part is not None:
            self._parts.append(part)
        self._engine.execute(f"CREATE OR REPLACE TABLE staged ({ROWS_DDL})")
        self._rows = self._bytes = 0


def newest_at(files: list[str]) -> str:
    """Select each key's newest row in these parts, but not of a key that is deleted. First which rows,
    then the rows: so values are not held in memory until the end is known."""
    rows = f"read_parquet({quoted_list(files)})"
    return f"""SELECT {COLUMNS} FROM {rows}
        SEMI JOIN (SELECT key, max(main) AS main FROM {rows} GROUP BY key) USING (key, main)
        WHERE NOT tombstone"""
