"""What clients did and what they were told, as records: plain, small, and free of protobuf.

A history of a million operations has to fit in memory beside its checker, so the records are frozen
structs that the garbage collector does not follow, and pairs are plain tuples that may be shared.

Every value that is put is unique in its history. That is what lets a checker find out what became of a
write whose answer was lost, and whether any write took effect twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TypeAlias

import msgspec

Pair: TypeAlias = tuple[bytes, bytes, int, int, int]
"""Key, value, create revision, mod revision, version. Leases are left out."""


class Target(IntEnum):
    """What of a pair is compared; numbered as in etcd's Compare."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3


class Relation(IntEnum):
    """How; numbered as in etcd's Compare."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Put(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: bytes
    prev_kv: bool = False


class Delete(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    range_end: bytes = b""
    """As in etcd: empty for one key, \\0 for everything from the key on."""
    prev_kv: bool = False


class Range(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    range_end: bytes = b""
    revision: int = 0
    """0: the current one."""
    limit: int = 0
    count_only: bool = False
    serializable: bool = False


class Compare(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    target: Target
    relation: Relation
    operand: bytes | int


class Txn(msgspec.Struct, frozen=True, gc=False):
    compares: tuple[Compare, ...]
    success: tuple[Request, ...]
    failure: tuple[Request, ...] = ()


class Compact(msgspec.Struct, frozen=True, gc=False):
    revision: int


Request: TypeAlias = Put | Delete | Range | Txn | Compact


class PutAnswer(msgspec.Struct, frozen=True, gc=False):
    previous: Pair | None = None


class DeleteAnswer(msgspec.Struct, frozen=True, gc=False):
    deleted: int
    previous: tuple[Pair, ...] = ()


class RangeAnswer(msgspec.Struct, frozen=True, gc=False):
    pairs: tuple[Pair, ...]
    count: int
    more: bool = False


class TxnAnswer(msgspec.Struct, frozen=True, gc=False):
    succeeded: bool
    answers: tuple[Answer, ...]


class CompactAnswer(msgspec.Struct, frozen=True, gc=False):
    pass


Answer: TypeAlias = PutAnswer | DeleteAnswer | RangeAnswer | TxnAnswer | CompactAnswer


class Refusal(IntEnum):
    """Why a request was certainly not executed."""

    OTHER = 0
    COMPACTED = 1
    FUTURE_REVISION = 2


class Outcome(IntEnum):
    OK = 0
    """Executed, and this is the answer."""
    REFUSED = 1
    """Certainly not executed, now or later."""
    UNKNOWN = 2
    """Executed at most once, at any time after the call; or not at all."""


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One call of one client. A request that is sent again under a promise of exactly once is one
    operation; a client's own new attempt is another one, with another value."""

    client: int
    call: float
    returned: float
    """On the same monotonic clock as every other time of the history; without meaning if UNKNOWN."""
    outcome: Outcome
    request: Request
    revision: int = 0
    """Of the answer's header; 0 unless OK."""
    answer: Answer | Refusal | None = None
    source: int = 0
    """Which member's incarnation answered a serializable read; 0 if that is not known."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change of one key, as a watch of everything from the first revision on tells it."""

    revision: int
    key: bytes
    value: bytes | None
    """None for a deletion."""
    create_revision: int = 0
    version: int = 0
    received: float = 0.0
    """When it was delivered, on the clock of the operations."""


def is_serializable(request: Request) -> bool:
    """Whether a stale answer is allowed: a read, or a transaction of such reads alone."""
    if isinstance(request, Range):
        return request.serializable
    if isinstance(request, Txn):
        parts = (*request.success, *request.failure)
        return bool(parts) and all(isinstance(part, Range) and part.serializable for part in parts)
    return False


def did_write(request: Request, answer: Answer | Refusal | None) -> bool:
    """Whether an answered request made a revision, going by its answer."""
    if isinstance(request, Put):
        return True
    if isinstance(answer, DeleteAnswer):
        return answer.deleted > 0
    if isinstance(request, Txn) and isinstance(answer, TxnAnswer):
        parts = request.success if answer.succeeded else request.failure
        return any(did_write(part, told) for part, told in zip(parts, answer.answers, strict=False))
    return False


def put_values(request: Request) -> Iterator[bytes]:
    """The values that it may put, whichever branch is taken."""
    if isinstance(request, Put):
        yield request.value
    elif isinstance(request, Txn):
        for part in (*request.success, *request.failure):
            yield from put_values(part)


def may_delete(request: Request) -> bool:
    """Whether it may write and leave no value by which it could be known again."""
    if isinstance(request, Txn):
        return any(may_delete(part) for part in (*request.success, *request.failure))
    return isinstance(request, Delete)


def is_in_range(name: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return name == key
    return key <= name and (range_end == b"\0" or name < range_end)
