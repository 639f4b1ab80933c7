"""What passes into the history and out of it, as Arrow tables."""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa

from etcray_storage.mvcc.schema import REVISIONS_ARROW

ROWS_SCHEMA: Final = REVISIONS_ARROW
"""One row per changed key of a revision, with the meaning of `mvcc.rows.RevisionRow`: the columns in which
the members send them, so that they are stored as they come."""

LEASES_SCHEMA: Final = pa.schema(
    [("id", pa.int64()), ("ttl_seconds", pa.int64()), ("remaining_ms", pa.int64())]
)

MEMBERS_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("is_learner", pa.bool_()),
        ("is_leader", pa.bool_()),
        ("peer_urls", pa.list_(pa.string())),
        ("client_urls", pa.list_(pa.string())),
    ]
)

COMPACTIONS_SCHEMA: Final = pa.schema([("revision", pa.int64()), ("time_ms", pa.int64())])

LOST_DELETION_SUB: Final = -1
"""The sub revision of a deletion that the history did not see: the key was there before a gap and is not
there after it, and the row stands at the gap's end."""


class Compaction(NamedTuple):
    revision: int
    time_ms: int
    """When it was noticed, in the clock of the one who follows."""


class HistoryBatch(NamedTuple):
    """Every change of the revisions above `after_revision`, up to and including `through_revision`.

    Whole revisions only, ordered by (main, sub). That nothing is missing is the sender's word: a member
    that compacted above `after_revision` before it read may not claim it.
    """

    after_revision: int
    through_revision: int
    rows: pa.Table
    """In ROWS_SCHEMA."""
    compactions: list[Compaction]
    """Noticed since the last batch; a batch may bring nothing else."""


class Gap(NamedTuple):
    """Revisions whose state is not known any more. Single rows of them may be."""

    first: int
    last: int


class SideTables(NamedTuple):
    """What is true now and has no history: shipped with every query."""

    leases: pa.Table
    """In LEASES_SCHEMA."""
    members: pa.Table
    """In MEMBERS_SCHEMA."""


def empty_rows() -> pa.Table:
    return ROWS_SCHEMA.empty_table()


def empty_sides() -> SideTables:
    return SideTables(LEASES_SCHEMA.empty_table(), MEMBERS_SCHEMA.empty_table())


def rows_table(rows: list[tuple[object, ...]]) -> pa.Table:
    """Tuples in the order of ROWS_SCHEMA, as a table."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(ROWS_SCHEMA)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, ROWS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROWS_SCHEMA)
