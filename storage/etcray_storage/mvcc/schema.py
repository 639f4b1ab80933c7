"""The three tables, and every SQL statement that has to know their columns.

Rules for this file: no primary key, no index, no UPDATE, DELETE or ALTER (DuckDB's known faults in
replaying a WAL live there), and all tables are created before the file counts. What is newer wins, and
*newer* is the row id: rows are only ever appended, so it is the order in which they were written.

`revisions` is ordered by (main, sub), always, and rewrites keep the order. That is what makes an old
revision cheap to find without an index: a row group's smallest and largest `main` rule out nearly all
of the file. A plain scan gives rows in their order; one with `IN (SELECT ...)` becomes a join, which
may turn them over, so it says ORDER BY where order matters (an eighth of a rewrite's time).

Values are stored with zstd. DuckDB's automatic choice costs 5 times the CPU at checkpoints (1.05 s
against 0.2 s for 240,000 incompressible values of 256 bytes) and compresses JSON three times less;
lookups take the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from etcray_storage.engine import Engine
from etcray_storage.errors import DataDirectoryError, StorageCorruptError
from etcray_storage.mvcc.rows import RevisionRow, StateItem
from etcray_storage.types import Index, Membership, Term

FORMAT_VERSION: Final = 2
"""2: `items` may hold members and the state hash, and `meta` has the membership as of its applied index.
Files of version 1 are read as they are."""

CREATE_TABLES: Final = (
    """CREATE TABLE revisions (
        main BIGINT, sub INTEGER, key BLOB, value BLOB USING COMPRESSION zstd, create_revision BIGINT,
        version BIGINT, lease BIGINT, tombstone BOOLEAN, time_ms BIGINT, author VARCHAR)""",
    "CREATE TABLE items (part VARCHAR, key BLOB, value BLOB, removed BOOLEAN, applied_index UBIGINT)",
    """CREATE TABLE meta (
        format_version INTEGER, applied_index UBIGINT, applied_term UBIGINT, revision BIGINT,
        compact_revision BIGINT, membership BLOB)""",
)

REVISION_COLUMNS: Final = ", ".join(RevisionRow._fields)

NEWEST_ITEMS: Final = """SELECT part, key, value, removed, applied_index FROM items
    WHERE rowid IN (SELECT max(rowid) FROM items GROUP BY part, key) AND NOT removed
    ORDER BY rowid"""

NEWEST_REVISIONS: Final = f"""SELECT {REVISION_COLUMNS} FROM revisions
    WHERE rowid IN (SELECT max(rowid) FROM revisions GROUP BY key) AND NOT tombstone"""
"""In no particular order: sorting a million rows would double the time to load them."""

HISTORY: Final = "SELECT key, main, tombstone FROM revisions"

READ_POINTS: Final = f"SELECT {REVISION_COLUMNS} FROM revisions WHERE main IN (SELECT unnest(?))"

EVENTS: Final = f"SELECT {REVISION_COLUMNS} FROM revisions WHERE main BETWEEN ? AND ?"
"""In order, because it is a plain scan; narrowed to keys by `events_of`."""

VERIFY: Final = f"SELECT {REVISION_COLUMNS} FROM revisions WHERE main >= ?"
"""In order, as `EVENTS`."""

SMALL_INSERT_ROWS: Final = 128
"""Up to here DuckDB's appender is cheaper than Arrow, whose fixed cost is 1 to 2 ms."""

REVISIONS_ARROW: Final = pa.schema(
    [
        ("main", pa.int64()),
        ("sub", pa.int32()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("create_revision", pa.int64()),
        ("version", pa.int64()),
        ("lease", pa.int64()),
        ("tombstone", pa.bool_()),
        ("time_ms", pa.int64()),
        ("author", pa.string()),
    ]
)


class Meta(NamedTuple):
    """What the tables hold: the newest row of `meta`, written in the transaction that it describes."""

    applied_index: Index
    applied_term: Term
    revision: int
    compact_revision: int
    membership: Membership


EMPTY: Final = Meta(Index(0), Term(0), 1, -1, Membership())
"""A store before its first entry. etcd's revision starts at 1."""

_encode_membership = msgspec.msgpack.Encoder().encode
_decode_membership = msgspec.msgpack.Decoder(Membership).decode


def needed_revisions(compact_revision: int, through: int | None = None) -> str:
    """Select the rows that a compaction at this revision leaves, in order; those of revisions up to
    `through` only, which is not below the compact revision.

    Below it each key keeps its newest row, because a read at the compact revision still finds it. A
    deleted key keeps nothing, except when its tombstone *is* the compact revision: a watcher may
    start there and must see the deletion (etcd lost such events, issues 18089 and 19179).
    """
    newer = f"main > {compact_revision}" + (f" AND main <= {through}" if through is not None else "")
    if compact_revision < 0:
        return f"SELECT {REVISION_COLUMNS} FROM revisions WHERE {newer}"
    return f"""SELECT {REVISION_COLUMNS} FROM revisions
        WHERE {newer} OR (
            rowid IN (SELECT max(rowid) FROM revisions WHERE main <= {compact_revision} GROUP BY key)
            AND (NOT tombstone OR main = {compact_revision}))
        ORDER BY rowid"""


def events_of(key: bytes, range_end: bytes, first: int, last: int) -> tuple[str, list[object]]:
    """The statement for the rows of a range of keys in a range of revisions, and its parameters."""
    if not range_end:
        return f"{EVENTS} AND key = ?", [first, last, key]
    if range_end == b"\0":
        return (EVENTS, [first, last]) if key <= b"\0" else (f"{EVENTS} AND key >= ?", [first, last, key])
    return f"{EVENTS} AND key >= ? AND key < ?", [first, last, key, range_end]


def insert_revisions(engine: Engine, rows: Sequence[RevisionRow]) -> None:
    if not rows:
        return
    if len(rows) <= SMALL_INSERT_ROWS:
        engine.append("revisions", rows)
        return
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, f.type) for values, f in zip(columns, REVISIONS_ARROW, strict=True)]
    engine.insert("revisions", pa.Table.from_arrays(arrays, schema=REVISIONS_ARROW))


def insert_items(engine: Engine, items: Sequence[StateItem], applied_index: Index) -> None:
    if not items:
        return
    engine.append("items", [(i.part, i.key, i.value, i.value is None, applied_index) for i in items])


def insert_meta(engine: Engine, meta: Meta) -> None:
    engine.execute(
        "INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?)",
        [FORMAT_VERSION, *meta[:4], _encode_membership(meta.membership)],
    )


def read_meta(engine: Engine) -> Meta:
    """The newest row. Raises DataDirectoryError for a newer format, StorageCorruptError without one."""
    found = engine.query(
        """SELECT format_version, applied_index, applied_term, revision, compact_revision, membership
           FROM meta WHERE rowid = (SELECT max(rowid) FROM meta)"""
    )
    if not found:
        raise StorageCorruptError("the tables have no meta row: rebuild this member from its peers")
    version, index, term, revision, compact_revision, membership = found[0]
    if version > FORMAT_VERSION:
        raise DataDirectoryError(
            f"the tables have format {version}, this version reads up to {FORMAT_VERSION}: "
            "start a newer version of etcray"
        )
    return Meta(Index(index), Term(term), revision, compact_revision, _decode_membership(membership))
