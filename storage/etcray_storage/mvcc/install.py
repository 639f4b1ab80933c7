"""Takes over a snapshot: verified, then built beside the tables in use, then renamed into place.

Two steps, because the old tables may be open until the second one:

1. `prepare_install` verifies the snapshot and builds a complete database from it. Whatever is wrong
   with the snapshot is found here; the old tables are not touched and may go on.
2. `commit_install`, with the old tables closed, renames: from that instant a start finds the new state.

A crash before the rename leaves the old state and files that the next start removes; after it, the
new state (`generations` tells the story). The log is reset by the caller, after the commit: tables that
are ahead of their log are recognised at the next start, a log ahead of its tables would replay nothing.
"""

from __future__ import annotations

from pathlib import Path

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageCorruptError
from etcray_storage.mvcc.generations import Builder, publish, work_directory
from etcray_storage.mvcc.schema import Meta, insert_meta
from etcray_storage.mvcc.snapshot import ITEMS, REVISIONS, Manifest, unpack
from etcray_storage.types import Index, Term


def prepare_install(directory: Path, snapshot_path: Path, sha256: str) -> Path:
    """Build the database of a snapshot; `commit_install` takes the path that it returns.

    Raises StorageCorruptError where the snapshot is not the one that `sha256` names, not a snapshot,
    or does not hold what it says. Nothing is left behind then.
    """
    with work_directory(directory, "install") as work:
        return _build(directory, work, unpack(snapshot_path, sha256, work))


def commit_install(directory: Path, prepared: Path) -> int:
    """Make the prepared state the one that counts. Nobody may have the old tables open: what they
    wrote from now on would be lost. Returns the number of the new generation."""
    return publish(prepared, directory)


def _build(directory: Path, work: Path, manifest: Manifest) -> Path:
    builder = Builder(directory, "install")
    try:
        engine = builder.engine
        for table, name in (("revisions", REVISIONS), ("items", ITEMS)):
            engine.load_parquet(table, work / name)
        index, term = Index(manifest.index), Term(manifest.term)
        insert_meta(
            engine, Meta(index, term, manifest.revision, manifest.compact_revision, manifest.membership)
        )
        _check(engine, manifest)
        return builder.finish()
    except BaseException:
        builder.abandon()
        raise


def _check(engine: Engine, manifest: Manifest) -> None:
    ((revisions, newest),) = engine.query("SELECT count(*), coalesce(max(main), 0) FROM revisions")
    ((items,),) = engine.query("SELECT count(*) FROM items")
    expected = (manifest.revisions_count, manifest.items_count)
    if (revisions, items) != expected or newest > manifest.revision:
        raise StorageCorruptError(
            f"the snapshot holds {revisions} revisions up to {newest} and {items} items; its manifest "
            f"says {expected[0]} up to {manifest.revision} and {expected[1]}"
        )
