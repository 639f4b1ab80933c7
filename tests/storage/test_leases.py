"""Leases in the state machine: ids, limits, keys, what a leader decides, and what survives."""

from __future__ import annotations

import pytest

from etcray_storage import errors
from etcray_storage.commands import (
    INTERNAL_SESSION,
    Batch,
    CommandKind,
    LeaseCheckpoint,
    LeaseExpiry,
    encode_lease_command,
)
from etcray_storage.proto.rpc_pb2 import (
    CORRUPT,
    NOSPACE,
    AlarmRequest,
    AlarmResponse,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

from .machine_driver import MachineDriver

EVERYTHING = RangeRequest(key=b"\0", range_end=b"\0")


def keys(driver: MachineDriver) -> list[bytes]:
    return [kv.key for kv in driver.read(EVERYTHING).kvs]


@pytest.mark.parametrize(
    ("asked", "granted"), [(-5, 2), (0, 2), (1, 2), (2, 2), (3, 3), (9_000_000_000, 9_000_000_000)]
)
def test_a_short_ttl_is_raised_to_the_minimum(asked: int, granted: int) -> None:
    driver = MachineDriver()
    response = driver.grant(7, asked)
    assert (response.ID, response.TTL, response.error) == (7, granted, "")
    found = driver.time_to_live(7)
    assert (found.TTL, found.grantedTTL) == (granted, granted)


@pytest.mark.parametrize(
    ("lease", "ttl_seconds", "error"),
    [
        (7, 60, errors.LEASE_EXIST),
        (8, 9_000_000_001, errors.LEASE_TTL_TOO_LARGE),
        (7, (1 << 63) - 1, errors.LEASE_TTL_TOO_LARGE),
        (0, 60, errors.LEASE_NOT_FOUND),
    ],
)
def test_a_grant_that_is_refused(lease: int, ttl_seconds: int, error: errors.EtcdError) -> None:
    driver = MachineDriver()
    driver.grant(7)
    assert driver.error(LeaseGrantRequest(ID=lease, TTL=ttl_seconds)) == error.number
    assert driver.lease_ids() == [7]


@pytest.mark.parametrize("lease", [1, -1, (1 << 63) - 1, -(1 << 63)])
def test_any_id_but_0_is_granted_listed_restored_and_revoked(lease: int) -> None:
    driver = MachineDriver()
    driver.grant(lease, 5)
    driver.put(b"a", lease=lease)
    driver.restart()
    assert driver.lease_ids() == [lease]
    assert list(driver.time_to_live(lease).keys) == [b"a"]
    driver.revoke(lease)
    driver.restart()
    assert driver.lease_ids() == []
    assert keys(driver) == []


def test_a_grant_does_not_move_the_revision() -> None:
    driver = MachineDriver()
    driver.grant(7)
    assert driver.revision == 1
    driver.revoke(7)
    assert driver.revision == 1


def test_a_revoke_deletes_the_keys_in_order_and_in_one_revision() -> None:
    driver = MachineDriver()
    driver.grant(7)
    names = [b"k%03d" % n for n in range(200)]
    for name in reversed(names):
        driver.put(name, lease=7)
    driver.flush()
    before = driver.revision
    driver.revoke(7)
    assert driver.revision == before + 1
    flush = driver.flush()
    assert flush is not None
    assert [(row.main, row.sub, row.key) for row in flush.rows] == [
        (before + 1, sub, name) for sub, name in enumerate(names)
    ]
    assert all(row.tombstone for row in flush.rows)
    assert driver.error(LeaseRevokeRequest(ID=7)) == errors.LEASE_NOT_FOUND.number


def test_a_key_that_moved_to_another_lease_is_not_deleted_with_the_old_one() -> None:
    driver = MachineDriver()
    driver.grant(7)
    driver.grant(8)
    for name in (b"moved", b"freed", b"kept", b"deleted", b"again"):
        driver.put(name, lease=7)
    driver.put(b"moved", lease=8)
    driver.put(b"freed")
    driver.put(b"kept", b"new value", ignore_lease=True)
    driver.delete(b"deleted")
    driver.delete(b"again")
    driver.put(b"again")
    assert list(driver.time_to_live(7).keys) == [b"kept"]
    assert list(driver.time_to_live(8).keys) == [b"moved"]
    driver.revoke(7)
    assert keys(driver) == [b"again", b"freed", b"moved"]
    assert driver.lease_ids() == [8]


def test_a_lease_outlives_its_keys() -> None:
    driver = MachineDriver()
    driver.grant(7)
    driver.put(b"a", lease=7)
    driver.delete(b"\0", b"\0")
    driver.compact(driver.revision)
    driver.restart()
    assert driver.lease_ids() == [7]
    driver.put(b"b", lease=7)
    assert list(driver.time_to_live(7).keys) == [b"b"]


def test_a_transaction_that_names_an_unknown_lease_changes_nothing() -> None:
    driver = MachineDriver()
    driver.grant(7)
    good = RequestOp(request_put=PutRequest(key=b"a", lease=7))
    bad = RequestOp(request_put=PutRequest(key=b"b", lease=8))
    assert driver.error(TxnRequest(success=[good, bad])) == errors.LEASE_NOT_FOUND.number
    assert driver.error(PutRequest(key=b"b", lease=8)) == errors.LEASE_NOT_FOUND.number
    driver.txn(TxnRequest(success=[good]))
    assert list(driver.time_to_live(7).keys) == [b"a"]


def test_several_leases_end_in_one_entry_each_in_its_own_revision() -> None:
    driver = MachineDriver()
    for lease in (9, 7, 8):
        driver.grant(lease)
    driver.put(b"a", lease=7)
    driver.put(b"b", lease=9)
    driver.put(b"c", lease=9)
    driver.flush()
    before = driver.revision
    assert driver.expire(9, 5, 8, 7, 9) == 0
    flush = driver.flush()
    assert flush is not None
    assert [(row.main - before, row.key) for row in flush.rows] == [(1, b"b"), (1, b"c"), (2, b"a")]
    assert driver.revision == before + 2
    assert driver.lease_ids() == []


def test_a_lease_granted_after_the_leader_looked_is_not_meant() -> None:
    driver = MachineDriver()
    driver.grant(7, 10)
    seen = driver.machine.applied_index
    driver.revoke(7)
    driver.grant(7, 20)
    driver.decide(LeaseExpiry([7], seen))
    driver.decide(LeaseCheckpoint([7], [1], seen))
    assert driver.time_to_live(7).TTL == 20
    driver.restart()
    driver.decide(LeaseExpiry([7], seen))
    assert driver.lease_ids() == [7]
    driver.expire(7)
    assert driver.lease_ids() == []


def test_a_checkpoint_is_kept_and_says_at_most_what_was_granted() -> None:
    driver = MachineDriver()
    driver.grant(7, 10)
    driver.grant(8, 10)
    driver.decide(LeaseCheckpoint([7, 8, 9], [4_999, 99_000, 1], driver.machine.applied_index))
    driver.restart()
    remaining = {lease: known.remaining_ms for lease, known in driver.machine.leases.items()}
    assert remaining == {7: 4_999, 8: 10_000}
    assert driver.time_to_live(7).TTL == 4


def test_a_checkpoint_is_written_also_if_its_lease_was_written_before() -> None:
    driver = MachineDriver()
    driver.grant(5, 60)
    driver.flush()
    driver.decide(LeaseCheckpoint([5], [7_000], driver.machine.applied_index))
    driver.restart()
    known = driver.machine.leases.get(5)
    assert known is not None
    assert known.remaining_ms == 7_000


def test_an_unknown_lease_has_no_time_to_live_and_that_is_no_error() -> None:
    found = MachineDriver().time_to_live(5)
    assert (found.ID, found.TTL, found.grantedTTL, list(found.keys)) == (5, -1, 0, [])


def test_alarms_stop_grants_and_a_corrupt_cluster_ends_no_lease() -> None:
    driver = MachineDriver()
    driver.grant(7)
    driver.grant(8)
    driver.run(AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=NOSPACE), AlarmResponse)
    assert driver.error(LeaseGrantRequest(ID=9, TTL=5)) == errors.NO_SPACE.number
    driver.revoke(7)
    driver.run(AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=CORRUPT), AlarmResponse)
    assert driver.error(LeaseGrantRequest(ID=9, TTL=5)) == errors.CORRUPT.number
    assert driver.error(LeaseRevokeRequest(ID=8)) == errors.CORRUPT.number
    assert driver.expire(8) == errors.CORRUPT.number
    assert driver.lease_ids() == [8]


def test_batches_of_the_leader_need_no_session_and_are_not_remembered() -> None:
    driver = MachineDriver()
    driver.grant(7)
    driver.flush()
    command = encode_lease_command(LeaseExpiry([7], driver.machine.applied_index))
    batch = Batch(INTERNAL_SESSION, 1, 0, bytes([CommandKind.LEASE_EXPIRE]), [command])
    (answer,) = driver.apply_batches(batch)
    assert answer.errors == [0]
    driver.grant(7)
    (answer,) = driver.apply_batches(batch)
    assert answer.errors == [0]
    assert driver.lease_ids() == [7]
    flush = driver.flush()
    assert flush is not None
    assert {item.key for item in flush.items if item.part == "session"} == {(77).to_bytes(8, "big")}


@pytest.mark.parametrize("kind", [CommandKind.LEASE_EXPIRE, CommandKind.LEASE_CHECKPOINT])
@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91\xa1a", b"\x93\x91\xcb\x00\x00\x00\x00\x00\x00\x00\x00"]
)
def test_a_damaged_decision_is_refused(kind: CommandKind, data: bytes) -> None:
    driver = MachineDriver()
    assert driver.apply_command(kind, data).errors == [errors.MALFORMED_REQUEST.number]


def test_grants_and_revokes_are_told_once() -> None:
    driver = MachineDriver()
    driver.grant(7)
    driver.grant(8)
    driver.decide(LeaseCheckpoint([7], [500], driver.machine.applied_index))
    driver.expire(8, 7)
    assert driver.machine.leases.take_changed() == [7, 8, 8, 7]
    assert driver.machine.leases.take_changed() == []
