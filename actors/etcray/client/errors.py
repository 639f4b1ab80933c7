"""The client's exceptions, told apart by what the caller can do about them.

Each carries the gRPC code and the server's own text, which for an answer of the store is etcd's.
"""

from __future__ import annotations

from typing import Final

from etcray_storage import errors as store
from etcray_storage.errors import Code


class EtcrayError(Exception):
    """A call failed. `code` is the gRPC status, `message` the server's text."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code.name})"


class UnavailableError(EtcrayError):
    """No answer in time, and nothing was changed: it was a read, or a write that was never sent.
    Calling again is safe."""

    def __init__(self, code: Code, message: str, *, is_passing: bool = True) -> None:
        super().__init__(code, message)
        self.is_passing = is_passing
        """False: it is so by the cluster's options, and calling again will not help."""


class NotAnsweredError(EtcrayError):
    """A write was sent and its answer did not come: it may be done, or be done later, or never.
    Read the key before writing again, or make the write a transaction that can be repeated."""


class InvalidRequestError(EtcrayError):
    """The request cannot be carried out as it is, now or later. Correct it."""


class CompactedError(InvalidRequestError):
    """The revision was compacted away. Read at a newer one; a watch that fell behind reads the present
    state first, and goes on from there."""

    def __init__(self, code: Code, message: str, compact_revision: int = 0) -> None:
        super().__init__(code, message)
        self.compact_revision = compact_revision
        """The oldest revision that is left, if the server named it: it does to watches. Else 0."""

    def __str__(self) -> str:
        oldest = f"; the oldest one left is {self.compact_revision}" if self.compact_revision else ""
        return f"{super().__str__()}{oldest}"


class FutureRevisionError(InvalidRequestError):
    """The store has not reached this revision. Read at an older one, or wait."""


class NotFoundError(EtcrayError):
    """The lease or the member that the request names does not exist."""


class PreconditionError(EtcrayError):
    """The cluster is not in a state in which this can be done; nothing was changed."""


class ExhaustedError(EtcrayError):
    """The store is full or busy beyond a limit, and nothing was changed. Free space, or come back
    later with less at once; the message says which."""


class AccessDeniedError(EtcrayError):
    """Not allowed, or not known who asks."""


class SqlError(EtcrayError):
    """A query was refused or stopped; nothing was changed, as by any query."""

    def __init__(self, code: Code, message: str, reason: str) -> None:
        super().__init__(code, message)
        self.reason = reason
        """invalid, refused, retention: correct the query. timeout, too_many_rows, out_of_memory: ask for
        less, or set the limits higher. busy, cancelled: ask again."""

    def __str__(self) -> str:
        return self.message


class CorruptError(EtcrayError):
    """The cluster found its members' data to differ and accepts no writes. Needs its operator."""


class WatchCancelledError(EtcrayError):
    """The watch was cancelled by this client, so there is nothing more to wait for."""


class LeaseLostError(EtcrayError):
    """The lease expired or was revoked, or was not renewed in time: its keys are gone or soon will be."""


class LockLostError(LeaseLostError):
    """The lock is not held any more, because its lease was lost. Somebody else may hold it now, so what
    it protects must not be touched; `fencing_token` tells late writes apart."""


class NotLeaderError(EtcrayError):
    """Somebody else leads, or nobody does."""


class LockTimeoutError(EtcrayError, TimeoutError):
    """The lock did not become free in the time given."""


_BY_CODE: Final[dict[Code, type[EtcrayError]]] = {
    Code.UNAVAILABLE: UnavailableError,
    Code.DEADLINE_EXCEEDED: UnavailableError,
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.OUT_OF_RANGE: InvalidRequestError,
    Code.UNIMPLEMENTED: InvalidRequestError,
    Code.NOT_FOUND: NotFoundError,
    Code.FAILED_PRECONDITION: PreconditionError,
    Code.RESOURCE_EXHAUSTED: ExhaustedError,
    Code.PERMISSION_DENIED: AccessDeniedError,
    Code.UNAUTHENTICATED: AccessDeniedError,
    Code.DATA_LOSS: CorruptError,
}

_BY_MESSAGE: Final[dict[str, type[EtcrayError]]] = {
    store.COMPACTED.message: CompactedError,
    store.FUTURE_REV.message: FutureRevisionError,
    store.AUTH_FAILED.message: AccessDeniedError,
}

_LOST_ANSWER: Final = frozenset(
    {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELED, Code.UNKNOWN, Code.INTERNAL}
)
"""Codes that a broken connection or an impatient server gives while a write is under way."""

_NEVER_CONNECTED: Final = ("failed to connect to all addresses", "DNS resolution failed")
"""How grpcio words an Unavailable for a request that it could not even begin to send."""


def was_never_sent(code: Code, message: str) -> bool:
    """True only if no connection was there to send the request on."""
    return code is Code.UNAVAILABLE and message.startswith(_NEVER_CONNECTED)


def error_for(code: Code, message: str, *, writes: bool) -> EtcrayError:
    """The exception for a failed call, retries included."""
    if writes and code in _LOST_ANSWER and not was_never_sent(code, message):
        # A real etcd answers some definite refusals as Unknown; its own prefix tells them.
        answered = code is Code.UNKNOWN and message.startswith("etcdserver: ")
        return EtcrayError(code, message) if answered else NotAnsweredError(code, message)
    kind = _BY_MESSAGE.get(message) or _BY_CODE.get(code, EtcrayError)
    return kind(code, message)
