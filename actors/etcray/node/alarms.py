"""What a leader does about what members say of themselves: it raises alarms, through the log.

CORRUPT is raised for the member whose state differs from the others' (see `reports`), and stays until
somebody takes it away. NOSPACE is raised for a member whose disk has little room left, and taken back when
it has room again: by a command of its own (`SpaceReport`), of which the state machine remembers that it was
this command that raised the alarm. So an alarm that somebody raised or re-raised by hand is never taken
back here, and one that is taken away by hand while there is still no room comes back, as in etcd.

Nobody waits for these proposals. One that is lost is made again at a later look, because the alarm is
not there then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.reports import PeerReports
from etcray.raft.errors import NotLeaderError, ProposalDroppedError
from etcray.raft.ready import Role
from etcray_storage.commands import (
    INTERNAL_SESSION,
    Batch,
    CommandKind,
    Payload,
    SpaceReport,
    encode_batch,
    encode_member_command,
    encode_payload,
)
from etcray_storage.proto.rpc_pb2 import CORRUPT, NOSPACE, AlarmRequest
from etcray_storage.types import MemberId

REPEAT_SECONDS: Final = 2.0
"""A proposal whose effect is not seen yet is not made again for so long."""


class AlarmKeeper:
    """One member's part in alarms, which is none unless it leads. `do_round` is called ten times a
    second by one thread, and by others at once when a hash differs."""

    def __init__(
        self,
        applier: Applier,
        driver: Driver,
        reports: PeerReports,
        member: MemberId,
        is_low_on_space: Callable[[], bool],
        clock: Callable[[], float],
        time_ms: Callable[[], int],
        sequences: Iterator[int],
    ) -> None:
        self._applier = applier
        self._driver = driver
        self._reports = reports
        self._member = member
        self._is_low_on_space = is_low_on_space
        self._clock = clock
        self._time_ms = time_ms
        self._sequences = sequences
        self._proposed_at: dict[tuple[int, MemberId, bool], float] = {}
        """When each alarm was last proposed to be raised, or taken back. Bounded by the members."""

    def do_round(self) -> None:
        """Compare what should be raised with what is, and propose the difference."""
        if self._driver.soft_state.role is not Role.LEADER:
            self._proposed_at.clear()
            return
        machine = self._applier.machine
        members = {member.id for member in machine.members}
        raised = {(kind, member) for member, kind in machine.alarms}
        for odd in self._reports.odd_ones(self._member, members):
            if (CORRUPT, odd) not in raised:
                self._raise_corrupt(odd)
        for member in members | machine.low_on_space:
            low = self._is_low_on_space() if member == self._member else self._reports.is_low_on_space(member)
            if low and (NOSPACE, member) not in raised:
                self._report_space(member, low=True)
            elif not low and member in machine.low_on_space:
                self._report_space(member, low=False)

    def _raise_corrupt(self, member: MemberId) -> None:
        request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member, alarm=CORRUPT)
        self._propose((CORRUPT, member, True), CommandKind.ALARM, request.SerializeToString())

    def _report_space(self, member: MemberId, *, low: bool) -> None:
        report = encode_member_command(SpaceReport(member, low))
        self._propose((NOSPACE, member, low), CommandKind.SPACE, report)

    def _propose(self, what: tuple[int, MemberId, bool], kind: CommandKind, request: bytes) -> None:
        now = self._clock()
        last = self._proposed_at.get(what)
        if last is not None and now < last + REPEAT_SECONDS:
            return
        self._proposed_at[what] = now
        batch = Batch(INTERNAL_SESSION, next(self._sequences), 0, bytes([kind]), [request])
        try:
            self._driver.propose(encode_payload(Payload(self._time_ms(), [encode_batch(batch)])))
        except (NotLeaderError, ProposalDroppedError):
            del self._proposed_at[what]
