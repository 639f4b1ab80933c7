"""The table of errors: what travels and is stored in it are numbers."""

from __future__ import annotations

import pickle

from etcray_storage import errors
from etcray_storage.errors import Code, EtcdError, error_by_number

NAMES = (
    "EMPTY_KEY",
    "KEY_NOT_FOUND",
    "VALUE_PROVIDED",
    "LEASE_PROVIDED",
    "TOO_MANY_OPS",
    "DUPLICATE_KEY",
    "INVALID_CLIENT_API_VERSION",
    "INVALID_SORT_OPTION",
    "COMPACTED",
    "FUTURE_REV",
    "NO_SPACE",
    "LEASE_NOT_FOUND",
    "LEASE_EXIST",
    "LEASE_TTL_TOO_LARGE",
    "WATCH_CANCELED",
    "MEMBER_EXIST",
    "PEER_URL_EXIST",
    "MEMBER_NOT_ENOUGH_STARTED",
    "MEMBER_BAD_URLS",
    "MEMBER_NOT_FOUND",
    "MEMBER_NOT_LEARNER",
    "LEARNER_NOT_READY",
    "TOO_MANY_LEARNERS",
    "CLUSTER_ID_MISMATCH",
    "REQUEST_TOO_LARGE",
    "REQUEST_TOO_MANY_REQUESTS",
    "ROOT_USER_NOT_EXIST",
    "ROOT_ROLE_NOT_EXIST",
    "USER_ALREADY_EXIST",
    "USER_EMPTY",
    "USER_NOT_FOUND",
    "ROLE_ALREADY_EXIST",
    "ROLE_NOT_FOUND",
    "ROLE_EMPTY",
    "AUTH_FAILED",
    "PERMISSION_NOT_GIVEN",
    "PERMISSION_DENIED",
    "ROLE_NOT_GRANTED",
    "PERMISSION_NOT_GRANTED",
    "AUTH_NOT_ENABLED",
    "INVALID_AUTH_TOKEN",
    "INVALID_AUTH_MGMT",
    "AUTH_OLD_REVISION",
    "NO_LEADER",
    "NOT_LEADER",
    "LEADER_CHANGED",
    "NOT_CAPABLE",
    "STOPPED",
    "TIMEOUT",
    "TIMEOUT_DUE_TO_LEADER_FAIL",
    "TIMEOUT_DUE_TO_CONNECTION_LOST",
    "TIMEOUT_WAIT_APPLIED_INDEX",
    "UNHEALTHY",
    "CORRUPT",
    "NOT_SUPPORTED_FOR_LEARNER",
    "BAD_LEADER_TRANSFEREE",
    "WRONG_DOWNGRADE_VERSION_FORMAT",
    "INVALID_DOWNGRADE_TARGET_VERSION",
    "CLUSTER_VERSION_UNAVAILABLE",
    "DOWNGRADE_IN_PROCESS",
    "NO_INFLIGHT_DOWNGRADE",
    "CANCELED",
    "DEADLINE_EXCEEDED",
    "SESSION_EXPIRED",
    "MALFORMED_REQUEST",
)
"""In the order of their numbers, from 1. A new one goes to the end; none is ever taken out."""


def test_numbers_never_change_their_meaning() -> None:
    """Members of different versions give one answer, and answers are remembered over an upgrade."""
    numbers = {name: error.number for name, error in vars(errors).items() if isinstance(error, EtcdError)}
    assert numbers == {name: number for number, name in enumerate(NAMES, 1)}


def test_every_number_gives_a_fresh_error() -> None:
    for number in range(1, len(NAMES) + 1):
        one, other = error_by_number(number), error_by_number(number)
        assert one is not other
        assert (one.code, one.message, one.number) == (other.code, other.message, number)


def test_number_of_a_newer_member_is_told_as_such() -> None:
    error = error_by_number(len(NAMES) + 1)
    assert error.code is Code.UNKNOWN
    assert "newer member" in error.message


def test_errors_travel_between_processes() -> None:
    error = error_by_number(errors.COMPACTED.number)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.message, copy.number) == (error.code, error.message, error.number)
