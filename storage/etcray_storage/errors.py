"""Every error that etcray gives, in two families.

`EtcdError` is an answer of the API: a gRPC code and etcd's own text, because Go clients tell errors
apart by text. The table below is the only place that maps an error to a code. An error that apply
decides is part of the replicated answer, so it travels as its number in the table: numbers are never
reused and never change their meaning.

`OperatingError` is for the person who runs a member: a directory that cannot be used, a damaged file.
Its subclasses are told apart by what that person can do about it, and each message says what to do.

A programmer's error is neither: it is an `assert`, is never caught, and ends the process.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """gRPC status codes, by their number on the wire."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class EtcdError(Exception):
    """An error answer of the API. The ones in the table have a `number` above 0; an error that
    only one place can give (an unknown method, a bad frame) is made on the spot with number 0."""

    def __init__(self, code: Code, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.number = number

    def __reduce__(self) -> tuple[type[EtcdError], tuple[Code, str, int]]:
        return (EtcdError, (self.code, self.message, self.number))


_BY_NUMBER: dict[int, EtcdError] = {}


def _define(number: int, code: Code, message: str) -> EtcdError:
    assert number not in _BY_NUMBER, f"error number {number} is taken by {_BY_NUMBER[number].message}"
    assert all(e.message != message for e in _BY_NUMBER.values()), f"error text {message!r} is defined twice"
    error = EtcdError(code, message, number)
    _BY_NUMBER[number] = error
    return error


def error_by_number(number: int) -> EtcdError:
    """The table's entry as a fresh exception (a shared one would collect tracebacks).
    A number from a newer member that this version does not know becomes Unknown."""
    known = _BY_NUMBER.get(number)
    if known is None:
        return EtcdError(Code.UNKNOWN, f"etcdserver: error number {number} of a newer member", number)
    return EtcdError(known.code, known.message, known.number)


# The numbers up to 63 follow the order of etcd's own list of errors.
EMPTY_KEY: Final = _define(1, Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND: Final = _define(2, Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED: Final = _define(3, Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED: Final = _define(4, Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS: Final = _define(5, Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
DUPLICATE_KEY: Final = _define(6, Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_CLIENT_API_VERSION: Final = _define(
    7, Code.INVALID_ARGUMENT, "etcdserver: invalid client api version"
)
INVALID_SORT_OPTION: Final = _define(8, Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
COMPACTED: Final = _define(9, Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REV: Final = _define(10, Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE: Final = _define(11, Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
LEASE_NOT_FOUND: Final = _define(12, Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXIST: Final = _define(13, Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE: Final = _define(14, Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
WATCH_CANCELED: Final = _define(15, Code.CANCELED, "etcdserver: watch canceled")
MEMBER_EXIST: Final = _define(16, Code.FAILED_PRECONDITION, "etcdserver: member ID already exist")
PEER_URL_EXIST: Final = _define(17, Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
MEMBER_NOT_ENOUGH_STARTED: Final = _define(
    18, Code.FAILED_PRECONDITION, "etcdserver: re-configuration failed due to not enough started members"
)
MEMBER_BAD_URLS: Final = _define(19, Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
MEMBER_NOT_FOUND: Final = _define(20, Code.NOT_FOUND, "etcdserver: member not found")
MEMBER_NOT_LEARNER: Final = _define(
    21, Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member"
)
LEARNER_NOT_READY: Final = _define(
    22, Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member which is in sync with leader"
)
TOO_MANY_LEARNERS: Final = _define(
    23, Code.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"
)
CLUSTER_ID_MISMATCH: Final = _define(24, Code.FAILED_PRECONDITION, "etcdserver: cluster ID mismatch")
REQUEST_TOO_LARGE: Final = _define(25, Code.INVALID_ARGUMENT, "etcdserver: request is too large")
REQUEST_TOO_MANY_REQUESTS: Final = _define(26, Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
ROOT_USER_NOT_EXIST: Final = _define(27, Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
ROOT_ROLE_NOT_EXIST: Final = _define(
    28, Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role"
)
USER_ALREADY_EXIST: Final = _define(29, Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
USER_EMPTY: Final = _define(30, Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
USER_NOT_FOUND: Final = _define(31, Code.FAILED_PRECONDITION, "etcdserver: user name not found")
ROLE_ALREADY_EXIST: Final = _define(32, Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
ROLE_NOT_FOUND: Final = _define(33, Code.FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_EMPTY: Final = _define(34, Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
AUTH_FAILED: Final = _define(
    35, Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"
)
PERMISSION_NOT_GIVEN: Final = _define(36, Code.INVALID_ARGUMENT, "etcdserver: permission not given")
PERMISSION_DENIED: Final = _define(37, Code.PERMISSION_DENIED, "etcdserver: permission denied")
ROLE_NOT_GRANTED: Final = _define(38, Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user")
PERMISSION_NOT_GRANTED: Final = _define(
    39, Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"
)
AUTH_NOT_ENABLED: Final = _define(40, Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
INVALID_AUTH_TOKEN: Final = _define(41, Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
INVALID_AUTH_MGMT: Final = _define(42, Code.INVALID_ARGUMENT, "etcdserver: invalid auth management")
AUTH_OLD_REVISION: Final = _define(43, Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
NO_LEADER: Final = _define(44, Code.UNAVAILABLE, "etcdserver: no leader")
NOT_LEADER: Final = _define(45, Code.FAILED_PRECONDITION, "etcdserver: not leader")
LEADER_CHANGED: Final = _define(46, Code.UNAVAILABLE, "etcdserver: leader changed")
NOT_CAPABLE: Final = _define(47, Code.FAILED_PRECONDITION, "etcdserver: not capable")
STOPPED: Final = _define(48, Code.UNAVAILABLE, "etcdserver: server stopped")
TIMEOUT: Final = _define(49, Code.UNAVAILABLE, "etcdserver: request timed out")
TIMEOUT_DUE_TO_LEADER_FAIL: Final = _define(
    50, Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"
)
TIMEOUT_DUE_TO_CONNECTION_LOST: Final = _define(
    51, Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost"
)
TIMEOUT_WAIT_APPLIED_INDEX: Final = _define(
    52, Code.UNAVAILABLE, "etcdserver: request timed out, waiting for the applied index took too long"
)
UNHEALTHY: Final = _define(53, Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
CORRUPT: Final = _define(54, Code.DATA_LOSS, "etcdserver: corrupt cluster")
NOT_SUPPORTED_FOR_LEARNER: Final = _define(
    55, Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"
)
BAD_LEADER_TRANSFEREE: Final = _define(56, Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
WRONG_DOWNGRADE_VERSION_FORMAT: Final = _define(
    57, Code.INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format"
)
INVALID_DOWNGRADE_TARGET_VERSION: Final = _define(
    58, Code.INVALID_ARGUMENT, "etcdserver: invalid downgrade target version"
)
CLUSTER_VERSION_UNAVAILABLE: Final = _define(
    59, Code.FAILED_PRECONDITION, "etcdserver: cluster version not found during downgrade"
)
DOWNGRADE_IN_PROCESS: Final = _define(
    60, Code.FAILED_PRECONDITION, "etcdserver: cluster has a downgrade job in progress"
)
NO_INFLIGHT_DOWNGRADE: Final = _define(61, Code.FAILED_PRECONDITION, "etcdserver: no inflight downgrade job")
CANCELED: Final = _define(62, Code.CANCELED, "etcdserver: request canceled")
DEADLINE_EXCEEDED: Final = _define(63, Code.DEADLINE_EXCEEDED, "etcdserver: context deadline exceeded")

# Errors that etcd's own list does not have.
SESSION_EXPIRED: Final = _define(
    64, Code.UNAVAILABLE, "etcray: the gateway's session expired before its request was applied"
)
MALFORMED_REQUEST: Final = _define(65, Code.INVALID_ARGUMENT, "etcray: the request cannot be decoded")


class OperatingError(Exception):
    """Something about this machine, this directory or this file stops a member. Never raise the
    base itself: the subclass says what the operator can do."""


class DataDirectoryError(OperatingError):
    """The data directory cannot be used as it is: wrong cluster, wrong member, newer version, not
    writable. Nothing in it was changed. The message names the directory and the way out."""


class DataDirectoryInUseError(DataDirectoryError):
    """Another process holds the directory's lock. Stop that process first."""


class StorageCorruptError(OperatingError):
    """A file of this member is damaged or shorter than its durable tip. The member must not vote:
    it has to be rebuilt from its peers."""


class QuarantinedError(StorageCorruptError):
    """The directory has lost, or may have lost, what its member promised: no member may ever vote from
    it again. Replace the member by one with a new id and an empty directory."""


class StorageFatalError(OperatingError):
    """A write or sync failed. What is on disk is unknown until the next start, so the process must
    end without acknowledging anything."""


class StorageFullError(OperatingError):
    """No space was left for a write that was not acknowledged. What was stored before is intact."""


class ListenError(OperatingError):
    """A gateway cannot listen on its address. The message names host and port and the way out."""
