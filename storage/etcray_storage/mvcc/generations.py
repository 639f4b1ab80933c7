"""Files of the tables: which one counts, how a new one comes to be, what is left over.

A generation is one database file, `mvcc-<number>.duckdb`, with its WAL beside it while it is in use.
The complete generation with the highest number counts, all others are garbage. A file gets such a name
only by a rename, after everything in it is synced: so *named* means *complete*, and the rename is the
one instant at which a new file, a rewrite or an installed snapshot takes effect. A crash leaves

1. before the rename: `*.building` files, which nobody has ever read. `clean` removes them.
2. after the rename, before its directory sync: either name, as the disk pleases; both are complete and
   hold the same committed state, because nobody writes to either until the sync returned.
3. before the old file is gone: two generations. The newer one wins; `clean` removes the older.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from etcray_storage.engine import Engine, sync_directory, sync_file, translated
from etcray_storage.mvcc.schema import CREATE_TABLES

_NAME: Final = re.compile(r"mvcc-(\d{8})\.duckdb")
_PREFIX: Final = "mvcc-"
BUILDING: Final = ".building"

BUILD_MEMORY_LIMIT_MIB: Final = 192


def generation_path(directory: Path, number: int) -> Path:
    assert 0 < number < 10**8, f"generation {number} does not fit its file name"
    return directory / f"mvcc-{number:08}.duckdb"


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def newest_generation(directory: Path) -> int:
    """0 where there is none."""
    matches = (_NAME.fullmatch(p.name) for p in directory.iterdir())
    return max((int(m.group(1)) for m in matches if m), default=0)


def clean(directory: Path) -> None:
    """Remove everything of the tables but the newest generation. Only while nobody uses any."""
    newest = newest_generation(directory)
    keep = generation_path(directory, newest).name if newest else None
    for path in directory.glob(f"{_PREFIX}*"):
        of_newest = keep is not None and path.name.startswith(keep) and not path.name.endswith(".tmp")
        if not of_newest:
            _remove(path)
    sync_directory(directory)


def remove_generation(directory: Path, number: int) -> None:
    for path in directory.glob(f"{generation_path(directory, number).name}*"):
        _remove(path)
    sync_directory(directory)


def publish(building: Path, directory: Path) -> int:
    """Make a finished file the newest generation; on return that is durable. Returns its number."""
    number = newest_generation(directory) + 1
    with translated(f"publish generation {number}"):
        building.rename(generation_path(directory, number))
    sync_directory(directory)
    return number


def _remove(path: Path) -> None:
    with translated(f"remove {path}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def work_directory(directory: Path, purpose: str) -> Iterator[Path]:
    """A directory for files that live no longer than this block. A crash leaves it to `clean`."""
    path = directory / f"{_PREFIX}{purpose}.work"
    _remove(path)
    with translated(f"create {path}"):
        path.mkdir()
    try:
        yield path
    finally:
        _remove(path)


class Builder:
    """A database file that does not count yet: empty tables in it, filled by whoever made it.

    Nothing is synced while it grows. Ends with `finish` or `abandon`; a crash is like `abandon`.
    """

    def __init__(self, directory: Path, purpose: str) -> None:
        self.path = directory / f"{_PREFIX}{purpose}{BUILDING}"
        self._remove_files()
        self.engine = Engine.open(self.path, BUILD_MEMORY_LIMIT_MIB, scratch=True)
        for statement in CREATE_TABLES:
            self.engine.execute(statement)
        self.engine.execute("CHECKPOINT")

    def finish(self) -> Path:
        """Close and sync the file: it is ready for `publish`."""
        self.engine.execute("CHECKPOINT")
        self.engine.close()
        wal = wal_path(self.path)
        assert not wal.exists(), f"{wal} survived the checkpoint: {wal.stat().st_size} bytes"
        sync_file(self.path)
        return self.path

    def abandon(self) -> None:
        self.engine.close()
        self._remove_files()

    def _remove_files(self) -> None:
        for path in self.path.parent.glob(f"{self.path.name}*"):
            _remove(path)
