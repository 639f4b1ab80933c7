"""The messages between the pool and a worker, and how they are framed on the pipes.

A frame is its kind (one byte), the length of its head and of its body (four bytes each), the head in
msgpack, and the body: Arrow IPC streams, which are neither copied nor looked into on the way.

What comes from a worker is not trusted: it ran a stranger's SQL. Lengths are checked before anything is
read, heads are decoded into types, and bodies are handed on unread.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, BinaryIO, Final

import msgspec

from etcray_storage.history.rows import Gap
from etcray_storage.limits import (
    HISTORY_QUERY_MILLISECONDS,
    HISTORY_RESULT_BYTES_MAX,
    HISTORY_RESULT_ROWS,
    MIB,
)

INVALID: Final = "invalid"
REFUSED: Final = "refused"
TIMEOUT: Final = "timeout"
TOO_MANY_ROWS: Final = "too_many_rows"
OUT_OF_MEMORY: Final = "out_of_memory"
BUSY: Final = "busy"
CANCELLED: Final = "cancelled"
UNAVAILABLE: Final = "unavailable"
RETENTION: Final = "retention"

REVISION_METADATA: Final = b"etcray.revision"
"""Under this key the schema of a result says at which revision it was answered."""


class Query(msgspec.Struct, frozen=True):
    """One statement of a user."""

    query_id: str
    """Chosen by the caller; unique among the queries that run."""
    sql: str
    parameters: list[Any] | dict[str, Any] = msgspec.field(default_factory=list)
    """Bound to `?` and `$1`, or to `$name`: None, bool, int, float, str and bytes."""
    timeout_ms: int = HISTORY_QUERY_MILLISECONDS
    rows_max: int = HISTORY_RESULT_ROWS
    bytes_max: int = HISTORY_RESULT_BYTES_MAX


class Answer(msgspec.Struct, frozen=True):
    """What became of it. `error_code` is empty if it worked."""

    error_code: str
    error_message: str
    revision: int
    """Everything up to here was seen, and nothing later."""
    rows: int = 0
    elapsed_ms: float = 0.0
    """In the worker."""
    arrow: bytes = b""
    """An Arrow IPC stream."""


class Kind(IntEnum):
    READY = 1
    RUN = 2
    CANCEL = 3
    BEGUN = 4
    """The worker has the query. A worker that ends before did not end because of it."""
    ANSWER = 5


class Run(msgspec.Struct, frozen=True):
    """A query, and the snapshot that it runs on. The body holds the tables, in the order of their sizes
    here: the tail's new rows, leases, members, compactions."""

    query: Query
    position: int
    parts: list[str]
    gaps: list[Gap]
    tail_epoch: int
    """A tail of another epoch than the one that the worker has replaces it; the same adds to it."""
    sizes: list[int]
    memory_mib: int


FRAME_BYTES_MAX: Final = HISTORY_RESULT_BYTES_MAX + 16 * MIB
"""A result at its limit, and Arrow's own overhead on it."""

_FRAME = Struct(">BII")


class FrameError(Exception):
    """The other side broke the framing: its process has to be replaced."""


def write_frame(pipe: BinaryIO, kind: Kind, head: bytes = b"", body: bytes | memoryview = b"") -> None:
    pipe.write(_FRAME.pack(kind, len(head), len(body)))
    pipe.write(head)
    pipe.write(body)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> tuple[Kind, bytes, bytes]:
    """The next frame. Raises EOFError at the end of the pipe, FrameError for what is no frame."""
    kind, head_bytes, body_bytes = _FRAME.unpack(_read_exactly(pipe, _FRAME.size))
    if kind not in Kind.__members__.values() or head_bytes + body_bytes > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of kind {kind} with {head_bytes} and {body_bytes} bytes")
    return Kind(kind), _read_exactly(pipe, head_bytes), _read_exactly(pipe, body_bytes)


def _read_exactly(pipe: BinaryIO, size: int) -> bytes:
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError(f"the pipe ended {size - len(content)} bytes too early")
    return content
