"""Alarms: raising, listing, taking away, and what they forbid."""

from __future__ import annotations

import pytest

from etcray_storage import errors, limits
from etcray_storage.commands import ReadKind, SpaceReport
from etcray_storage.proto.rpc_pb2 import (
    CORRUPT,
    NONE,
    NOSPACE,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from etcray_storage.types import MemberId

from .machine_driver import MachineDriver

PUT = PutRequest(key=b"a")
PLAIN_PUT = PutRequest(key=b"a", value=b"1")
"""One that has a shorter way through the machine, as nearly all have."""
TXN_WITH_PUT = TxnRequest(failure=[RequestOp(request_txn=TxnRequest(success=[RequestOp(request_put=PUT)]))])


def alarm(
    driver: MachineDriver, action: AlarmRequest.AlarmAction, member: int, kind: AlarmType
) -> list[tuple[int, int]]:
    response = driver.run(AlarmRequest(action=action, memberID=member, alarm=kind), AlarmResponse)
    return [(a.memberID, a.alarm) for a in response.alarms]


def listed(driver: MachineDriver, kind: AlarmType = NONE) -> list[tuple[int, int]]:
    request = AlarmRequest(action=AlarmRequest.GET, alarm=kind)
    answer = driver.machine.read(ReadKind.ALARMS, request.SerializeToString())
    read: list[tuple[int, int]] = [
        (a.memberID, a.alarm) for a in AlarmResponse.FromString(answer.body).alarms
    ]
    assert alarm(driver, AlarmRequest.GET, 0, kind) == read
    return read


def test_alarms_are_raised_listed_and_taken_away_one_by_one() -> None:
    driver = MachineDriver()
    assert alarm(driver, AlarmRequest.ACTIVATE, 12, NOSPACE) == [(12, NOSPACE)]
    assert alarm(driver, AlarmRequest.ACTIVATE, 12, NOSPACE) == [(12, NOSPACE)]
    assert alarm(driver, AlarmRequest.ACTIVATE, 11, NOSPACE) == [(11, NOSPACE)]
    assert alarm(driver, AlarmRequest.ACTIVATE, 11, CORRUPT) == [(11, CORRUPT)]
    assert listed(driver) == [(11, NOSPACE), (12, NOSPACE), (11, CORRUPT)]
    assert listed(driver, CORRUPT) == [(11, CORRUPT)]
    assert alarm(driver, AlarmRequest.DEACTIVATE, 0, NOSPACE) == []
    assert alarm(driver, AlarmRequest.DEACTIVATE, 11, NOSPACE) == [(11, NOSPACE)]
    assert alarm(driver, AlarmRequest.DEACTIVATE, 11, NOSPACE) == []
    assert listed(driver) == [(12, NOSPACE), (11, CORRUPT)]
    assert driver.revision == 1


def test_raising_no_kind_does_nothing() -> None:
    driver = MachineDriver()
    assert alarm(driver, AlarmRequest.ACTIVATE, 12, NONE) == []
    assert listed(driver) == []


def test_without_space_puts_are_refused_and_all_else_goes_on() -> None:
    driver = MachineDriver()
    driver.put(b"b")
    driver.put(b"c")
    alarm(driver, AlarmRequest.ACTIVATE, 11, NOSPACE)
    assert driver.error(PUT) == errors.NO_SPACE.number
    assert driver.error(PLAIN_PUT) == errors.NO_SPACE.number
    assert driver.error(TXN_WITH_PUT) == errors.NO_SPACE.number
    assert driver.delete(b"b").deleted == 1
    delete = RequestOp(request_delete_range=DeleteRangeRequest(key=b"c"))
    driver.txn(TxnRequest(success=[delete]))
    assert driver.read(RangeRequest(key=b"\0", range_end=b"\0")).count == 0
    driver.compact(driver.revision)
    alarm(driver, AlarmRequest.ACTIVATE, 12, NOSPACE)
    alarm(driver, AlarmRequest.DEACTIVATE, 11, NOSPACE)
    assert driver.error(PUT) == errors.NO_SPACE.number
    alarm(driver, AlarmRequest.DEACTIVATE, 12, NOSPACE)
    driver.put(b"a")


@pytest.mark.parametrize(
    "request_",
    [PUT, PLAIN_PUT, DeleteRangeRequest(key=b"a"), TxnRequest(), TXN_WITH_PUT, CompactionRequest(revision=1)],
)
def test_a_corrupt_cluster_refuses_every_write_and_still_reads(
    request_: PutRequest | DeleteRangeRequest | TxnRequest | CompactionRequest,
) -> None:
    driver = MachineDriver()
    driver.put(b"b")
    alarm(driver, AlarmRequest.ACTIVATE, 11, CORRUPT)
    assert driver.error(request_) == errors.CORRUPT.number
    alarm(driver, AlarmRequest.ACTIVATE, 11, NOSPACE)
    assert driver.error(request_) == errors.CORRUPT.number
    assert driver.read(RangeRequest(key=b"b")).count == 1


def test_alarms_survive_a_restart() -> None:
    driver = MachineDriver()
    alarm(driver, AlarmRequest.ACTIVATE, 5, CORRUPT)
    alarm(driver, AlarmRequest.ACTIVATE, (1 << 64) - 1, NOSPACE)
    flush = driver.flush()
    assert flush is not None
    assert [item.key.hex() for item in flush.items if item.part == "alarm"] == [
        "00000001" + "f" * 16,
        "00000002" + "0" * 15 + "5",
    ]
    alarm(driver, AlarmRequest.DEACTIVATE, 5, CORRUPT)
    driver.restart()
    assert listed(driver) == [((1 << 64) - 1, NOSPACE)]
    assert driver.error(PUT) == errors.NO_SPACE.number


@pytest.mark.parametrize("number", [3, -1, (1 << 31) - 1, -(1 << 31)])
def test_unknown_enums_are_answered_and_restored(number: int) -> None:
    driver = MachineDriver()
    request = AlarmRequest(memberID=1, alarm=NOSPACE)
    request.action = number  # type: ignore[assignment]
    assert len(driver.run(request, AlarmResponse).alarms) == 0
    request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1)
    request.alarm = number  # type: ignore[assignment]
    assert len(driver.run(request, AlarmResponse).alarms) == 1
    driver.restart()
    assert listed(driver) == [(1, number)]
    driver.put(b"a")


def test_alarms_are_bounded() -> None:
    driver = MachineDriver()
    for member in range(limits.ALARMS_MAX):
        alarm(driver, AlarmRequest.ACTIVATE, member, NOSPACE)
    request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1 << 20, alarm=NOSPACE)
    assert driver.error(request) == errors.REQUEST_TOO_MANY_REQUESTS.number


def test_lack_of_space_that_a_member_reported_is_taken_back_when_there_is_room() -> None:
    driver = MachineDriver()
    assert driver.change(SpaceReport(MemberId(12), low=True)) == (0, b"")
    assert list(driver.machine.alarms) == [(12, NOSPACE)]
    assert driver.error(PUT) == errors.NO_SPACE.number
    driver.restart()  # whoever leads then has to know who raised it
    assert driver.change(SpaceReport(MemberId(11), low=False)) == (0, b"")
    assert listed(driver) == [(12, NOSPACE)]
    assert driver.change(SpaceReport(MemberId(12), low=False)) == (0, b"")
    assert list(driver.machine.alarms) == []
    driver.put(b"a")


@pytest.mark.parametrize("by_hand_first", [True, False])
def test_lack_of_space_that_somebody_raised_by_hand_is_only_taken_back_by_hand(by_hand_first: bool) -> None:
    driver = MachineDriver()
    if by_hand_first:
        alarm(driver, AlarmRequest.ACTIVATE, 12, NOSPACE)
    driver.change(SpaceReport(MemberId(12), low=True))
    alarm(driver, AlarmRequest.ACTIVATE, 12, NOSPACE)
    driver.restart()
    driver.change(SpaceReport(MemberId(12), low=False))
    assert listed(driver) == [(12, NOSPACE)]
    assert alarm(driver, AlarmRequest.DEACTIVATE, 12, NOSPACE) == [(12, NOSPACE)]
    driver.change(SpaceReport(MemberId(12), low=False))
    assert listed(driver) == []
