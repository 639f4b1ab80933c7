"""Alarms: replicated flags, one per (kind, member), that restrict what every member does.

While a NOSPACE alarm is raised, puts and transactions that hold a put are refused; reads, deletes
and compactions go on. While a CORRUPT alarm is raised, every write is refused. An alarm stays until
a client takes it away, one member at a time: member 0 does not mean all.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcray_storage import errors, limits, wire
from etcray_storage.errors import error_by_number
from etcray_storage.mvcc.rows import StateItem
from etcray_storage.proto.rpc_pb2 import CORRUPT, NONE, NOSPACE, AlarmRequest

PART = "alarm"

Alarm = tuple[int, int]
"""Kind, member id."""


class Alarms:
    """Kinds are not limited to the known ones: an unknown one is kept and has no effect, as in etcd."""

    def __init__(self) -> None:
        self._raised: set[Alarm] = set()
        self._dirty: set[Alarm] = set()
        self.no_space = False
        self.corrupt = False

    def apply(self, request: AlarmRequest) -> bytes:
        """The body of the AlarmResponse: what was asked for, raised or taken away. Raises
        TOO_MANY_REQUESTS."""
        alarm = (request.alarm, request.memberID)
        if request.action == AlarmRequest.GET:
            return self.get(request)
        if request.action == AlarmRequest.ACTIVATE and request.alarm != NONE:
            if alarm not in self._raised:
                if len(self._raised) >= limits.ALARMS_MAX:
                    raise error_by_number(errors.REQUEST_TOO_MANY_REQUESTS.number)
                self._raised.add(alarm)
                self._changed(alarm)
            return _response([alarm])
        if request.action == AlarmRequest.DEACTIVATE and alarm in self._raised:
            self._raised.remove(alarm)
            self._changed(alarm)
            return _response([alarm])
        return b""

    def get(self, request: AlarmRequest) -> bytes:
        """The body of the AlarmResponse with the raised alarms of a kind; NONE means all kinds."""
        return _response(a for a in self._raised if request.alarm in (NONE, a[0]))

    def take_items(self) -> list[StateItem]:
        """What changed since the last call."""
        items = [StateItem(PART, _key(a), b"" if a in self._raised else None) for a in sorted(self._dirty)]
        self._dirty.clear()
        return items

    def restore(self, key: bytes) -> None:
        """Take over one raised alarm from the tables."""
        self._raised.add((int.from_bytes(key[:4], "big", signed=True), int.from_bytes(key[4:], "big")))
        self._update()

    def _changed(self, alarm: Alarm) -> None:
        self._dirty.add(alarm)
        self._update()

    def _update(self) -> None:
        self.no_space = any(kind == NOSPACE for kind, _ in self._raised)
        self.corrupt = any(kind == CORRUPT for kind, _ in self._raised)


def _key(alarm: Alarm) -> bytes:
    kind, member = alarm
    return kind.to_bytes(4, "big", signed=True) + member.to_bytes(8, "big")


def _response(alarms: Iterable[Alarm]) -> bytes:
    """Sorted for determinism."""
    members = [wire.varint_field(1, member) + wire.varint_field(2, kind) for kind, member in sorted(alarms)]
    return wire.repeated_bytes_field(2, members)
