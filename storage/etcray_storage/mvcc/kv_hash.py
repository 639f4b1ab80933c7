"""HashKV: a number that two members share exactly if they hold the same history of keys.

It is computed over rows in a canonical form, not over files, and over the rows that a reader may still
ask for, not over those that happen to be there. So it does not depend on when a member flushed, whether
a rewrite has dropped what compaction allows to drop, or in which format rows are stored. Which rows those
are follows from two numbers: the revision that is asked for, and the compact revision
(`schema.needed_revisions`). Both are in the answer: hashes are comparable if both are equal.

Everything of a row takes part, its time too. The number itself is not etcd's: that one is computed over
etcd's own encoding of its own files.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final, NamedTuple

from etcray_storage import errors
from etcray_storage.engine import Engine
from etcray_storage.errors import error_by_number
from etcray_storage.mvcc.schema import needed_revisions, read_meta

_NUMBERS: Final = Struct(">qqqqqq?III")
_BATCH_ROWS: Final = 1_024


class KvHash(NamedTuple):
    """The hash of all keys with their history, up to a revision."""

    hash: int
    """CRC-32."""
    revision: int
    """Up to and including this one."""
    compact_revision: int
    """-1: never compacted."""


def hash_revisions(engine: Engine, revision: int) -> KvHash:
    """Hash what the tables behind `engine`, a connection that nobody else uses, hold at one moment.
    Revision 0 is their newest. Raises COMPACTED or FUTURE_REV."""
    with engine.transaction():
        meta = read_meta(engine)
        if 0 < revision < meta.compact_revision:
            raise error_by_number(errors.COMPACTED.number)
        if revision > meta.revision:
            raise error_by_number(errors.FUTURE_REV.number)
        through = revision if revision > 0 else meta.revision
        crc = 0
        sql = needed_revisions(meta.compact_revision, through)
        for batch in engine.query_batches(sql, rows_per_batch=_BATCH_ROWS):
            parts: list[bytes] = []
            for main, sub, key, value, create, version, lease, tombstone, time_ms, author in batch:
                name = author.encode()
                sizes = (len(key), len(value), len(name))
                numbers = (main, sub, create, version, lease, time_ms, tombstone, *sizes)
                parts += (_NUMBERS.pack(*numbers), key, value, name)
            crc = zlib.crc32(b"".join(parts), crc)
    return KvHash(crc, through, meta.compact_revision)
