"""The record of what a process did to its files, as `recorder.c` wrote it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<Iiqqq3I")


class Operation(IntEnum):
    """As in `recorder.c`."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    CLOSE = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    MARK = 10


class Call(NamedTuple):
    """One call that took effect."""

    operation: Operation
    descriptor: int
    flags: int
    offset: int
    length: int
    path: str
    other: str
    data: bytes


def compiler() -> str | None:
    """The C compiler that the recorder needs, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def build_recorder(directory: Path) -> Path:
    """Compile the recorder; the library to preload."""
    library = directory / "recorder.so"
    found = compiler()
    assert found is not None, "there is no C compiler: install gcc"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run([found, "-shared", "-fPIC", "-O2", str(source), "-o", str(library), "-ldl"], check=True)
    return library


def read_journal(path: Path) -> Iterator[Call]:
    """The calls in their order."""
    raw = memoryview(path.read_bytes())
    position = 0
    while position < len(raw):
        operation, descriptor, flags, offset, length, *sizes = _HEADER.unpack_from(raw, position)
        position += _HEADER.size
        parts = []
        for size in sizes:
            parts.append(bytes(raw[position : position + size]))
            position += size
        names = [part.decode() for part in parts[:2]]
        yield Call(Operation(operation), descriptor, flags, offset, length, names[0], names[1], parts[2])
    assert position == len(raw), f"the journal ends at {len(raw)}, its last record at {position}"
