"""Rows in bulk, for whoever keeps a copy of all revisions: whole revisions, in order, as Arrow.

From the disk they go from DuckDB's columns to Arrow's without ever being Python objects, which costs a
fifth of reading them as rows. A piece ends with a whole revision, because a copy's position is a revision.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa

from etcray_storage.engine import Engine
from etcray_storage.mvcc.events import EventRows
from etcray_storage.mvcc.schema import REVISION_COLUMNS, REVISIONS_ARROW, needed_revisions

BATCH_ROWS: Final = 2_048
"""Rows of one Arrow batch, which is also DuckDB's own unit: the scan goes on batch by batch."""


class FeedRows(NamedTuple):
    """A piece of all revisions, ordered by (main, sub)."""

    rows: pa.Table
    """With the columns of `schema.REVISIONS_ARROW`."""
    through: int
    """The rows up to this revision are complete."""


def revisions_between(first: int, last: int) -> str:
    """The statement for all rows of some revisions."""
    return f"SELECT {REVISION_COLUMNS} FROM revisions WHERE main BETWEEN {first:d} AND {last:d}"


def base_revisions(first: int, compact_revision: int) -> str:
    """The statement for those rows from `first` up to the compact revision that the compaction leaves."""
    needed = needed_revisions(compact_revision)
    return (
        f"SELECT * FROM ({needed}) WHERE main BETWEEN {first:d} AND {compact_revision:d} ORDER BY main, sub"
    )


def read_feed(engine: Engine, sql: str, last: int, bytes_max: int) -> FeedRows:
    """What the statement finds, which ends with revision `last`, until `bytes_max` are reached; at least
    one revision. The connection is free again afterwards."""
    batches: list[pa.RecordBatch] = []
    size = 0
    with engine.stream(sql, BATCH_ROWS) as stream:
        for batch in stream:
            if not batch.num_rows:
                continue
            batches.append(batch)
            size += batch.get_total_buffer_size()
            if size >= bytes_max:
                cut = _whole_revisions(batches)
                if cut is not None:
                    return cut
    return FeedRows(pa.Table.from_batches(batches, REVISIONS_ARROW), last)


def _whole_revisions(batches: list[pa.RecordBatch]) -> FeedRows | None:
    """Without the last revision, which may go on in the next batch; None if it is the only one."""
    mains = batches[-1].column(0)
    last = mains[-1].as_py()
    if batches[0].column(0)[0].as_py() == last:
        return None
    table = pa.Table.from_batches(batches, REVISIONS_ARROW)
    length = table.num_rows
    column = table.column(0)
    while column[length - 1].as_py() == last:
        length -= 1
    return FeedRows(table.slice(0, length), last - 1)


def arrow_of(piece: EventRows) -> FeedRows:
    """Rows that were Python objects anyway."""
    columns = zip(*piece.rows, strict=True) if piece.rows else [()] * len(REVISIONS_ARROW)
    arrays = [pa.array(values, f.type) for values, f in zip(columns, REVISIONS_ARROW, strict=True)]
    return FeedRows(pa.Table.from_arrays(arrays, schema=REVISIONS_ARROW), piece.through)
