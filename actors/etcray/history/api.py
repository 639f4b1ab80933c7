"""The calls that the history actor answers, as plain messages: one bytes object each way."""

from __future__ import annotations

from typing import Any

import msgspec

Scalar = None | bool | int | float | str | bytes
"""What a parameter of a query may be."""


class QueryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One SQL statement of a user."""

    query_id: str
    """Chosen by the asker, unlike any other: `cancel` names the query by it."""
    sql: str
    parameters: list[Any] | dict[str, Any] = []
    """Each a `Scalar`, for ? and $1, or for $name. (msgspec has no union of text and bytes.)"""
    stale: bool = False
    """Answer from what history holds now, instead of everything that was committed when it was asked."""
    timeout_ms: int = 0
    """Waiting for that included; 0: the default."""
    rows_max: int = 0
    """0: the default. More rows are an error, not a shorter answer."""


class QueryReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, or why there is none.

    Error codes: `invalid` (no SQL, with DuckDB's own words), `refused` (SQL that is not allowed here),
    `timeout`, `too_many_rows`, `out_of_memory`, `busy`, `cancelled`, `unavailable` (history is not ready),
    `retention` (the revision is not kept any more)."""

    error_code: str = ""
    """Empty: there is an answer."""
    error_message: str = ""
    revision: int = 0
    """The answer is the state as of this revision."""
    stale: bool = False
    rows: int = 0
    elapsed_ms: float = 0.0
    """In the history actor, waiting included."""
    arrow: bytes = b""
    """An Arrow IPC stream; its schema's metadata has `etcray.revision`."""


class HistoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What history says of itself."""

    process_id: int
    revision: int
    """Complete through this revision."""
    first_revision: int
    """The oldest revision whose state can be asked for."""
    lag_revisions: int
    """How far that was behind the member that was asked last."""
    is_following: bool
    """False while it catches up, or finds no member to follow."""
    source: int
    """The id of the member that gave the last rows; 0 before the first. Members come and go, and only the
    supervisor knows all their names."""
    rows: int
    parts: int
    size_bytes: int
    queries: int
    """Under way now."""
    query_count: int
    """Since it was opened."""
    problem: str
    """What keeps it from following; empty if nothing does."""
    damage: list[str]
    """What was found damaged when the store was opened, and was fetched again."""


encode = msgspec.msgpack.Encoder().encode
decode_query_request = msgspec.msgpack.Decoder(QueryRequest).decode
decode_query_reply = msgspec.msgpack.Decoder(QueryReply).decode
decode_status = msgspec.msgpack.Decoder(HistoryStatus).decode
