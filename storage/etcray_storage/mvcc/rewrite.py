"""Space compaction: the rows that are still needed, copied into a fresh file while writes go on.

DuckDB gives no space back for deleted rows, so nothing is deleted: what remains is copied. `Rewrite`
does the long part in the background and a short last part while writes wait:

1. `copy` reads the source inside one transaction, so it sees one applied index however long it takes.
2. `catch_up` copies what was written since the applied index it reached last. Repeated until little is
   left; new rows are found by `main`, which only grows.
3. The caller stops writes, calls `catch_up` once more, then `builder.finish`, publishes the file and
   goes on with it. Both files hold the same applied index at that moment.

Source and target are two DuckDB instances, so that the target can be built without syncs and the
source keeps its own settings and its own memory limit; rows travel as Arrow batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from etcray_storage.engine import Engine
from etcray_storage.mvcc.generations import Builder
from etcray_storage.mvcc.schema import (
    NEWEST_ITEMS,
    REVISION_COLUMNS,
    Meta,
    insert_meta,
    needed_revisions,
    read_meta,
)

_BATCH_ROWS: Final = 4_096

CATCH_UP_REVISIONS: Final = 5_000
"""So few revisions may be left for the last catch-up, during which writes wait."""

CATCH_UP_ROUNDS_MAX: Final = 16
"""A writer that is faster than the copy waits for the rest after so many rounds."""


class Rewrite:
    """One rewrite of the tables behind `source`, a connection that nobody else uses."""

    def __init__(self, directory: Path, source: Engine) -> None:
        self._source = source
        self.builder = Builder(directory, "rewrite")
        self._reached: Meta | None = None

    def copy(self) -> None:
        """The rows that the source's compact revision leaves, then nearly everything newer."""
        with self._source.transaction():
            meta = read_meta(self._source)
            self._copy_rows(meta, needed_revisions(meta.compact_revision), NEWEST_ITEMS)
        for _ in range(CATCH_UP_ROUNDS_MAX):
            before = meta.revision
            meta = self.catch_up()
            if meta.revision - before <= CATCH_UP_REVISIONS:
                break

    def catch_up(self) -> Meta:
        """Everything that was written since the last copy. Returns what the target holds now."""
        since = self._reached
        assert since is not None, "catch_up comes after copy"
        with self._source.transaction():
            meta = read_meta(self._source)
            assert meta.revision >= since.revision, f"revision {meta.revision} is behind {since.revision}"
            if meta.applied_index > since.applied_index:
                self._copy_rows(
                    meta,
                    f"SELECT {REVISION_COLUMNS} FROM revisions WHERE main > {since.revision}",
                    f"SELECT * FROM items WHERE applied_index > {since.applied_index}",
                )
        return meta

    def _copy_rows(self, meta: Meta, revisions: str, items: str) -> None:
        target = self.builder.engine
        with target.transaction():
            target.insert("revisions", self._source.stream(revisions, _BATCH_ROWS))
            target.insert("items", self._source.stream(items, _BATCH_ROWS))
            insert_meta(target, meta)
        self._reached = meta
