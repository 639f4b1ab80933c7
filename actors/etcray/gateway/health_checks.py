"""Whether the cluster is well: the questions behind /health, /livez and /readyz.

Each is a real one, never a guess from what was seen last: a read has to come back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from etcray.gateway.service import ServiceContext
from etcray_storage.commands import ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc

_HEALTH_KEY: Final = b"health"
_ALARM_NAMES: Final = ("NOSPACE", "CORRUPT")


class IllError(Exception):
    """A check failed; the message says why, in etcd's words."""


class HealthChecks:
    """Asks the cluster. Every check returns, or raises `IllError`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._dispatcher = context.dispatcher
        live: dict[str, Callable[[], Awaitable[None]]] = {"serializable_read": self.serializable_read}
        self.live = live
        """What /livez asks: can this side of the cluster still answer?"""
        self.ready = {
            "data_corruption": self.data_is_sound,
            **live,
            "linearizable_read": self.linearizable_read,
            "non_learner": self.voter_answers,
        }
        """What /readyz asks: should clients be sent here?"""

    async def overall(self, *, serializable: bool, excluded: Collection[str]) -> None:
        """What /health asks. Excluded alarms are passed over. Serializable: nothing about the leader."""
        for name in await self._alarms():
            if name not in excluded:
                raise IllError(f"ALARM {name if name in _ALARM_NAMES else 'UNKNOWN'}")
        if not serializable and not await self._dispatcher.has_leader():
            raise IllError("RAFT NO LEADER")
        try:
            await self._read(serializable=serializable)
        except EtcdError as error:
            raise IllError(f"RANGE ERROR:{error.message}") from error

    async def serializable_read(self) -> None:
        await self._checked_read(serializable=True)

    async def linearizable_read(self) -> None:
        await self._checked_read(serializable=False)

    async def data_is_sound(self) -> None:
        if "CORRUPT" in await self._alarms():
            raise IllError("alarm activated: CORRUPT")

    async def voter_answers(self) -> None:
        statuses = await self._dispatcher.statuses()
        if all(status.member in status.membership.learners for status in statuses):
            raise IllError("not supported for learner")

    async def _checked_read(self, *, serializable: bool) -> None:
        try:
            await self._read(serializable=serializable)
        except EtcdError as error:
            raise IllError(error.message) from error

    async def _read(self, *, serializable: bool) -> None:
        request = rpc.RangeRequest(key=_HEALTH_KEY, limit=1, serializable=serializable)
        await self._dispatcher.read(ReadKind.RANGE, request.SerializeToString(), serializable=serializable)

    async def _alarms(self) -> list[str]:
        request = rpc.AlarmRequest().SerializeToString()
        try:
            reply = await self._dispatcher.read(ReadKind.ALARMS, request, serializable=True)
        except EtcdError as error:
            raise IllError(f"RANGE ERROR:{error.message}") from error
        return [rpc.AlarmType.Name(alarm.alarm) for alarm in rpc.AlarmResponse.FromString(reply.body).alarms]
