"""Alarms: replicated flags, one per (kind, member), that restrict what every member does.

While a NOSPACE alarm is raised, puts and transactions that hold a put are refused; reads, deletes
and compactions go on. While a CORRUPT alarm is raised, every write is refused. An alarm stays until
a client takes it away, one member at a time: member 0 does not mean all.

One kind goes away by itself: a NOSPACE that a member's own look at its disk has raised (`report_space`)
is marked, and is taken back when the disk has room again. The mark is replicated, so that the next
leader knows it too. Whoever raises the same alarm by hand takes the mark away: then only a hand clears it.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcray_storage import errors, limits, wire
from etcray_storage.commands import SpaceReport
from etcray_storage.errors import error_by_number
from etcray_storage.mvcc.rows import StateItem
from etcray_storage.proto.rpc_pb2 import CORRUPT, NONE, NOSPACE, AlarmRequest
from etcray_storage.types import MemberId

PART = "alarm"

Alarm = tuple[int, int]
"""Kind, member id."""

_BY_HAND = b""
_BY_REPORT = b"\x01"


class Alarms:
    """Kinds are not limited to the known ones: an unknown one is kept and has no effect, as in etcd."""

    def __init__(self) -> None:
        self._raised: dict[Alarm, bytes] = {}
        """How each was raised: `_BY_HAND` or `_BY_REPORT`."""
        self._dirty: set[Alarm] = set()
        self.effects: list[bytes] = []
        """For the state hash: what changed since the owner emptied it, before each entry."""
        self.all: tuple[tuple[MemberId, int], ...] = ()
        """Member and kind of each, sorted. Replaced as a whole: to be looked at from any thread."""
        self.by_report: frozenset[MemberId] = frozenset()
        """Whose NOSPACE was raised by a report, and is taken back by one. Replaced as a whole."""
        self.no_space = False
        self.corrupt = False

    def apply(self, request: AlarmRequest) -> bytes:
        """The body of the AlarmResponse: what was asked for, raised or taken away. Raises
        TOO_MANY_REQUESTS."""
        alarm = (request.alarm, request.memberID)
        if request.action == AlarmRequest.GET:
            return self.get(request)
        if request.action == AlarmRequest.ACTIVATE and request.alarm != NONE:
            self._raise(alarm, _BY_HAND)
            return _response([alarm])
        if request.action == AlarmRequest.DEACTIVATE and alarm in self._raised:
            self._set(alarm, None)
            return _response([alarm])
        return b""

    def report_space(self, report: SpaceReport) -> bytes:
        """Nothing to answer: a member's disk is low on space, or not any more. Raises
        TOO_MANY_REQUESTS."""
        alarm = (NOSPACE, report.member)
        if report.low and alarm not in self._raised:
            self._raise(alarm, _BY_REPORT)
        elif not report.low and self._raised.get(alarm) == _BY_REPORT:
            self._set(alarm, None)
        return b""

    def get(self, request: AlarmRequest) -> bytes:
        """The body of the AlarmResponse with the raised alarms of a kind; NONE means all kinds."""
        return _response(a for a in self._raised if request.alarm in (NONE, a[0]))

    def take_items(self) -> list[StateItem]:
        """What changed since the last call."""
        items = [StateItem(PART, _key(alarm), self._raised.get(alarm)) for alarm in sorted(self._dirty)]
        self._dirty.clear()
        return items

    def restore(self, item: StateItem) -> None:
        """Take over one raised alarm from the tables."""
        assert item.value is not None, f"alarm {item.key.hex()} was removed"
        kind = int.from_bytes(item.key[:4], "big", signed=True)
        self._raised[kind, int.from_bytes(item.key[4:], "big")] = item.value
        self._update()

    def _raise(self, alarm: Alarm, how: bytes) -> None:
        if alarm not in self._raised and len(self._raised) >= limits.ALARMS_MAX:
            raise error_by_number(errors.REQUEST_TOO_MANY_REQUESTS.number)
        if self._raised.get(alarm) != how:
            self._set(alarm, how)

    def _set(self, alarm: Alarm, how: bytes | None) -> None:
        if how is None:
            del self._raised[alarm]
        else:
            self._raised[alarm] = how
        self._dirty.add(alarm)
        self.effects.append(_key(alarm) + (b"\xff" if how is None else how))
        self._update()

    def _update(self) -> None:
        self.all = tuple(sorted((MemberId(member), kind) for kind, member in self._raised))
        self.by_report = frozenset(
            MemberId(member) for (_, member), how in self._raised.items() if how == _BY_REPORT
        )
        self.no_space = any(kind == NOSPACE for kind, _ in self._raised)
        self.corrupt = any(kind == CORRUPT for kind, _ in self._raised)


def _key(alarm: Alarm) -> bytes:
    kind, member = alarm
    return kind.to_bytes(4, "big", signed=True) + member.to_bytes(8, "big")


def _response(alarms: Iterable[Alarm]) -> bytes:
    """Sorted for determinism."""
    members = [wire.varint_field(1, member) + wire.varint_field(2, kind) for kind, member in sorted(alarms)]
    return wire.repeated_bytes_field(2, members)
