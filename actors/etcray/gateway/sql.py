"""POST /sql: a user's statement to the history actor, its answer as JSON or as an Arrow stream.

The gateway is an event loop with many clients, so it does nothing here that grows with the answer: an Arrow
answer is sent as it came, piece by piece as the client reads, and JSON is made in a thread. A client that
goes away cancels its query.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from etcray.gateway.http_messages import HttpRequest, HttpResponse
from etcray.history.api import QueryReply, QueryRequest, Scalar, decode_query_reply, encode
from etcray_storage.limits import SQL_BODY_BYTES_MAX, SQL_CHUNK_BYTES, SQL_REQUESTS_MAX

ARROW: Final = "application/vnd.apache.arrow.stream"
_JSON: Final = "application/json"

_STATUSES: Final = {
    "invalid": HTTPStatus.BAD_REQUEST,
    "refused": HTTPStatus.BAD_REQUEST,
    "retention": HTTPStatus.BAD_REQUEST,
    "timeout": HTTPStatus.REQUEST_TIMEOUT,
    "too_many_rows": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "out_of_memory": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "busy": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
_CLIENT_CLOSED_REQUEST: Final = 499


AWAY: Final = "the history is being opened, or started again: ask again in a moment"
ABSENT: Final = "this cluster runs without history: start it without --no-history"


class HistoryUnreachableError(Exception):
    """The call failed: the history actor is dead, or the way to it is."""


class HistoryChannel(Protocol):
    """The way to the history actor. Every method may raise `HistoryUnreachableError`."""

    async def query(self, request: bytes) -> bytes:
        """Give an encoded `history.api.QueryRequest`, get an encoded `QueryReply`."""

    async def cancel(self, query_id: str) -> None: ...


class _Blob(msgspec.Struct, forbid_unknown_fields=True):
    """A parameter that is bytes."""

    base64: bytes


_Parameter = None | bool | int | float | str | _Blob


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    parameters: list[_Parameter] | dict[str, _Parameter] = []
    stale: bool = False
    timeout_ms: int = 0
    rows_max: int = 0


_decode_body = msgspec.json.Decoder(_Body).decode


class SqlApi:
    """Give it a `channel` once history serves, and None when it does not."""

    def __init__(self) -> None:
        self.channel: HistoryChannel | None = None
        self.is_kept = False
        """Whether this cluster has a history at all."""
        self._running = 0
        self._cancelling: set[asyncio.Task[None]] = set()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponse(405, "text/plain; charset=utf-8", b"Method Not Allowed\n", allow="POST")
        if len(request.body) > SQL_BODY_BYTES_MAX:
            return _error(413, "invalid", f"a request may have {SQL_BODY_BYTES_MAX} bytes")
        try:
            body = _decode_body(request.body)
        except msgspec.DecodeError as error:
            return _error(400, "invalid", f"the request is not as it should be: {error}")
        if body.timeout_ms < 0 or body.rows_max < 0:
            return _error(400, "invalid", "timeout_ms and rows_max cannot be negative")
        channel = self.channel
        if channel is None:
            status, message = (503, AWAY) if self.is_kept else (501, ABSENT)
            return _error(status, "unavailable", message)
        if self._running >= SQL_REQUESTS_MAX:
            return _error(429, "busy", f"{SQL_REQUESTS_MAX} queries run at this gateway: ask again later")
        self._running += 1
        try:
            reply = await self._ask(channel, body)
            if reply.error_code:
                status = _STATUSES.get(reply.error_code, _CLIENT_CLOSED_REQUEST)
                return _error(status, reply.error_code, reply.error_message)
            if ARROW in (request.headers.get("accept") or b"").decode("latin-1").lower():
                return _arrow_response(reply)
            return HttpResponse(200, _JSON, await asyncio.to_thread(_json_answer, reply))
        finally:
            self._running -= 1

    async def _ask(self, channel: HistoryChannel, body: _Body) -> QueryReply:
        query = QueryRequest(
            query_id=uuid.uuid4().hex,
            sql=body.query,
            parameters=_scalars(body.parameters),
            stale=body.stale,
            timeout_ms=body.timeout_ms,
            rows_max=body.rows_max,
        )
        try:
            return decode_query_reply(await channel.query(encode(query)))
        except HistoryUnreachableError:
            return QueryReply(error_code="unavailable", error_message=AWAY)
        except asyncio.CancelledError:
            task = asyncio.get_running_loop().create_task(_cancel(channel, query.query_id))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
            raise


def _scalars(given: list[_Parameter] | dict[str, _Parameter]) -> list[Scalar] | dict[str, Scalar]:
    if isinstance(given, dict):
        return {name: value.base64 if isinstance(value, _Blob) else value for name, value in given.items()}
    return [value.base64 if isinstance(value, _Blob) else value for value in given]


async def _cancel(channel: HistoryChannel, query_id: str) -> None:
    try:
        await channel.cancel(query_id)
    except HistoryUnreachableError:
        return  # the query died with the actor


def _json_answer(reply: QueryReply) -> bytes:
    from etcray.gateway.sql_json import json_answer  # brings Arrow with it, which a gateway else never needs

    return json_answer(reply)


def _arrow_response(reply: QueryReply) -> HttpResponse:
    fields = (
        ("etcray-revision", str(reply.revision)),
        ("etcray-stale", "true" if reply.stale else "false"),
        ("etcray-elapsed-ms", f"{reply.elapsed_ms:.3f}"),
    )
    arrow = reply.arrow
    if len(arrow) <= SQL_CHUNK_BYTES:
        return HttpResponse(200, ARROW, arrow, headers=fields)
    return HttpResponse(200, ARROW, arrow[:SQL_CHUNK_BYTES], headers=fields, chunks=_rest_of(arrow))


async def _rest_of(arrow: bytes) -> AsyncGenerator[bytes, None]:
    """The pieces after the first."""
    for start in range(SQL_CHUNK_BYTES, len(arrow), SQL_CHUNK_BYTES):
        yield arrow[start : start + SQL_CHUNK_BYTES]


def _error(status: int, code: str, message: str) -> HttpResponse:
    return HttpResponse(int(status), _JSON, msgspec.json.encode({"code": code, "message": message}))
