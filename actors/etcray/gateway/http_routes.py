"""The plain HTTP paths beside gRPC: /health and /version."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from etcray.gateway.http_messages import HttpRequest, HttpResponse
from etcray.gateway.service import CLUSTER_VERSION, SERVER_VERSION, STORAGE_VERSION, ServiceContext
from etcray_storage.commands import ReadKind
from etcray_storage.errors import NO_LEADER, EtcdError
from etcray_storage.proto import rpc_pb2 as rpc

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_HEALTH_KEY: Final = b"health"
_METHODS: Final = ("GET", "HEAD")


class HttpRoutes:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def handle(self, request: HttpRequest) -> HttpResponse:
        url = urlsplit(request.target)
        if url.path not in ("/health", "/version"):
            return HttpResponse(404, _TEXT, b"404 page not found\n")
        if request.method not in _METHODS or (url.path == "/health" and request.method != "GET"):
            return HttpResponse(405, _TEXT, b"Method Not Allowed\n", allow="GET")
        if url.path == "/version":
            return _json(
                200,
                {"etcdserver": SERVER_VERSION, "etcdcluster": CLUSTER_VERSION, "storage": STORAGE_VERSION},
            )
        query = parse_qs(url.query)
        reason = await self._ill_reason(
            serializable=query.get("serializable") == ["true"], excluded=query.get("exclude", [])
        )
        return _json(503 if reason else 200, {"health": "false" if reason else "true", "reason": reason})

    async def _ill_reason(self, *, serializable: bool, excluded: list[str]) -> str:
        """Why the cluster is not healthy; empty if it is. A real read, not a guess: it needs a leader
        that a majority still follows, unless only this side is asked about."""
        dispatcher = self._context.dispatcher
        if not serializable and not await dispatcher.has_leader():
            return "RAFT NO LEADER"
        read = rpc.RangeRequest(key=_HEALTH_KEY, limit=1, serializable=serializable)
        try:
            alarms = await dispatcher.read(
                ReadKind.ALARMS, rpc.AlarmRequest().SerializeToString(), serializable=True
            )
            for alarm in rpc.AlarmResponse.FromString(alarms.body).alarms:
                name = rpc.AlarmType.Name(alarm.alarm)
                if name not in excluded:
                    return f"ALARM {name}"
            await dispatcher.read(ReadKind.RANGE, read.SerializeToString(), serializable=serializable)
        except EtcdError as error:
            return "RAFT NO LEADER" if error.message == NO_LEADER.message else f"RANGE ERROR:{error.message}"
        return ""


def _json(status: int, fields: dict[str, str]) -> HttpResponse:
    return HttpResponse(status, _JSON, msgspec.json.encode(fields))
