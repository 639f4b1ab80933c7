"""The plain HTTP paths beside gRPC: /health, /livez, /readyz, /version, /sql; the way to the JSON gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from etcray.gateway.grpc import PlainHandler
from etcray.gateway.health_checks import HealthChecks, IllError
from etcray.gateway.http_messages import HttpRequest, HttpResponse
from etcray.gateway.service import CLUSTER_VERSION, SERVER_VERSION, STORAGE_VERSION, ServiceContext
from etcray.gateway.sql import SqlApi

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_JSON_API: Final = ("/v3/", "/v3beta/")

Query = dict[str, list[str]]
Checks = Mapping[str, Callable[[], Awaitable[None]]]


class HttpRoutes:
    """Set `json_api` before the first request."""

    json_api: PlainHandler

    def __init__(self, context: ServiceContext) -> None:
        self._checks = HealthChecks(context)
        self.sql = SqlApi()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Any origin may ask: OPTIONS gets its answer from the headers that every response has."""
        if request.method == "OPTIONS":
            return HttpResponse(200, "", b"")
        if request.target.startswith(_JSON_API):
            return await self.json_api(request)
        url = urlsplit(request.target)
        query = parse_qs(url.query, keep_blank_values=True)
        if url.path == "/version":
            return _get_only(request, also="HEAD") or _version()
        if url.path == "/sql":
            return await self.sql.handle(request)
        if url.path == "/health":
            return _get_only(request) or await self._health(query)
        top, _, name = url.path.removeprefix("/").partition("/")
        checks = {"livez": self._checks.live, "readyz": self._checks.ready}.get(top)
        if checks is None or url.path.endswith("/") or (name and name not in checks):
            return HttpResponse(404, _TEXT, b"404 page not found\n")
        return _get_only(request) or await _probe({name: checks[name]} if name else checks, query)

    async def _health(self, query: Query) -> HttpResponse:
        try:
            await self._checks.overall(
                serializable=query.get("serializable", [""])[0] == "true", excluded=query.get("exclude", [])
            )
        except IllError as ill:
            return _json(503, {"health": "false", "reason": str(ill)})
        return _json(200, {"health": "true", "reason": ""})


async def _probe(checks: Checks, query: Query) -> HttpResponse:
    """One line a check if one of them failed, or if the lines were asked for."""
    lines = []
    ill = False
    for name, check in checks.items():
        if name in query.get("exclude", []):
            continue
        try:
            await check()
            lines.append(f"[+]{name} ok\n")
        except IllError as reason:
            ill = True
            lines.append(f"[-]{name} failed: {reason}\n")
    text = "".join(lines)
    if ill:
        return HttpResponse(503, _TEXT, f"{text}\n".encode())
    return HttpResponse(200, _TEXT, ((text if "verbose" in query else "") + "ok\n").encode())


def _get_only(request: HttpRequest, *, also: str = "") -> HttpResponse | None:
    if request.method in ("GET", also):
        return None
    return HttpResponse(405, _TEXT, b"Method Not Allowed\n", allow="GET")


def _version() -> HttpResponse:
    fields = {"etcdserver": SERVER_VERSION, "etcdcluster": CLUSTER_VERSION, "storage": STORAGE_VERSION}
    return _json(200, fields)


def _json(status: int, fields: dict[str, str]) -> HttpResponse:
    return HttpResponse(status, _JSON, msgspec.json.encode(fields))
