"""Writes the rows of a snapshot: the same rows that a rewrite would keep, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from etcray_storage.engine import Engine
from etcray_storage.limits import MIB
from etcray_storage.mvcc import snapshot
from etcray_storage.mvcc.schema import NEWEST_ITEMS, needed_revisions, read_meta

_ROW_GROUP_BYTES: Final = 32 * MIB
"""About so much is held in memory at once: parquet is written group by group."""

_ROW_GROUP_ROWS_MIN: Final = 2_048
_ROW_GROUP_ROWS_MAX: Final = 122_880


def export_parquet(engine: Engine, work: Path, size_bytes: int) -> snapshot.Manifest:
    """Write the parquet files of a snapshot into `work`, as of one moment. `engine` is a connection that
    nobody else uses, `size_bytes` what its tables take on the disk."""
    with engine.transaction():
        meta = read_meta(engine)
        ((count,),) = engine.query("SELECT count(*) FROM revisions")
        row_bytes = max(1, size_bytes // max(1, count))
        group_rows = min(max(_ROW_GROUP_BYTES // row_bytes, _ROW_GROUP_ROWS_MIN), _ROW_GROUP_ROWS_MAX)
        needed = needed_revisions(meta.compact_revision)
        revisions = engine.write_parquet(needed, work / snapshot.REVISIONS, group_rows)
        items = engine.write_parquet(NEWEST_ITEMS, work / snapshot.ITEMS, _ROW_GROUP_ROWS_MIN)
    return snapshot.Manifest(
        format=snapshot.FORMAT,
        format_version=snapshot.FORMAT_VERSION,
        index=meta.applied_index,
        term=meta.applied_term,
        membership=meta.membership,
        revision=meta.revision,
        compact_revision=meta.compact_revision,
        revisions_count=revisions,
        items_count=items,
    )
