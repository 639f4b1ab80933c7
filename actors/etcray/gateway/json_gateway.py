"""etcd's API as JSON over plain HTTP: each POST becomes a call of the handler that gRPC has.

So everything that a service checks, refuses or limits is the same on both ways. What is different is the
form: `json_codec` for the messages, HTTP statuses for the codes, and for streams one line
`{"result": ...}` a message. The body of a stream is read completely before the call begins; its end is no
reason to end a watch. On a WebSocket (`websocket`) requests and answers go both ways at any time.

Errors carry their text twice, as `error` and as `message`, because releases of etcd differ in which one
they send and clients in which one they read. As in etcd's gateway, a request that is no JSON is
InvalidArgument in a unary call and Unknown in a stream, and malformed JSON behind the first request of
a stream only ends the requests; on a WebSocket, whose client would wait in vain, it ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec

from etcray.gateway.framing import parse_timeout
from etcray.gateway.grpc import Call, Router, StreamHandler
from etcray.gateway.http_engine import HeaderMap
from etcray.gateway.http_messages import Exchange, Headers, HttpRequest, HttpResponse
from etcray.gateway.json_codec import parse_values
from etcray.gateway.json_routes import ROUTES, Route
from etcray_storage import limits
from etcray_storage.errors import Code, EtcdError

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_METADATA_PREFIX: Final = "grpc-metadata-"
_LEGACY_PREFIX: Final = "/v3beta/"
_CLIENT_CLOSED_REQUEST: Final = 499

_HTTP_STATUSES: Final[dict[Code, int]] = {
    Code.CANCELED: _CLIENT_CLOSED_REQUEST,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class JsonGateway:
    """Answers everything under /v3/ and /v3beta/."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def handle(self, request: HttpRequest) -> HttpResponse:
        route = _route(request)
        if route is None:
            return HttpResponse(404, _TEXT, b"Not Found\n")
        if request.method != "POST":
            return HttpResponse(405, _TEXT, b"Method Not Allowed\n")
        self._router.call_count += 1
        call = Call(route.rpc, _metadata(request.headers))
        try:
            seconds = _timeout(request.headers)
            handler = self._router.stream_handlers.get(route.rpc)
            if handler is not None:
                return await self._stream(route, handler, request.body, call, seconds)
            async with asyncio.timeout(seconds):
                return HttpResponse(200, _JSON, await self._unary(route, request.body, call))
        except TimeoutError:
            return _error_response(_deadline_exceeded())
        except EtcdError as error:
            return _error_response(error)

    async def _unary(self, route: Route, body: bytes, call: Call) -> bytes:
        message = _encode_request(route, next(parse_values(body), None))
        handler = self._router.unary_handlers.get(route.rpc)
        if handler is None:
            raise self._router.unknown_method(route.rpc)
        await self._router.admit(call)
        return route.response.encode(await handler(message, call))

    # --- streams ----------------------------------------------------------------------------------

    async def _stream(
        self, route: Route, handler: StreamHandler, body: bytes, call: Call, seconds: float | None
    ) -> HttpResponse:
        """The head waits for the first message, because until then the call may still fail."""
        values = parse_values(body)
        try:
            first = [_encode_request(route, value) for value in _first(values)]
        except EtcdError as error:
            if route.client_streams:
                raise EtcdError(Code.UNKNOWN, error.message) from error
            raise
        if not route.client_streams:
            first, values = first or [b""], iter(())
        results = self._results(route, handler, _requests(route, first, values), call, seconds)
        try:
            beginning = await anext(results)
        except StopAsyncIteration:
            return HttpResponse(200, _JSON, b"", chunks=results)
        except EtcdError as error:
            return HttpResponse(_status(error), _JSON, _error_line(error))
        return HttpResponse(200, _JSON, beginning, chunks=_until_error(results))

    def exchange(self, request: HttpRequest) -> Exchange | HttpResponse:
        """The call behind a WebSocket: any path will do, also that of a unary call, which is over after
        one answer."""
        route = _route(request)
        if route is None:
            return HttpResponse(404, _TEXT, b"Not Found\n")
        try:
            seconds = _timeout(request.headers)
        except EtcdError as error:
            return _error_response(error)
        self._router.call_count += 1
        call = Call(route.rpc, _metadata(request.headers))
        return partial(self._converse, route, call, seconds)

    async def _converse(
        self, route: Route, call: Call, seconds: float | None, messages: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        handler = self._router.stream_handlers.get(route.rpc)
        if handler is None:
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._unary(route, await anext(messages), call)
            except TimeoutError:
                answer = _error_response(_deadline_exceeded()).body
            except EtcdError as error:
                answer = _error_response(error).body
            yield answer
            return
        results = self._results(route, handler, _decoded(route, messages), call, seconds)
        async with aclosing(_until_error(results)) as lines:
            async for line in lines:
                yield line.removesuffix(b"\n")

    async def _results(
        self,
        route: Route,
        handler: StreamHandler,
        requests: AsyncIterator[bytes],
        call: Call,
        seconds: float | None,
    ) -> AsyncGenerator[bytes, None]:
        """The time-out is around each step, because it must not fire while the client's socket is
        waited for, outside of this generator."""
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._router.admit(call)
            async with aclosing(handler(requests, call)) as responses:
                while True:
                    async with asyncio.timeout_at(deadline):
                        response = await anext(responses, None)
                    if response is None:
                        return
                    yield b'{"result":' + route.response.encode(response) + b"}\n"
        except TimeoutError:
            raise _deadline_exceeded() from None


async def _until_error(results: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(results):
        try:
            async for result in results:
                yield result
        except EtcdError as error:
            yield _error_line(error)


def _route(request: HttpRequest) -> Route | None:
    path = request.target.partition("?")[0]
    if path.startswith(_LEGACY_PREFIX):
        path = "/v3/" + path.removeprefix(_LEGACY_PREFIX)
    return ROUTES.get(path)


async def _decoded(route: Route, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The requests in the messages of a WebSocket; one message may hold several."""
    try:
        async for message in messages:
            for value in parse_values(message):
                yield _encode_request(route, value)
    except EtcdError as error:
        if route.client_streams:
            raise EtcdError(Code.UNKNOWN, error.message) from error
        raise


def _first(values: Iterator[Any]) -> Iterator[Any]:
    """At most one value of what follows; the rest stays there."""
    for value in values:
        yield value
        return


async def _requests(route: Route, first: list[bytes], values: Iterator[Any]) -> AsyncGenerator[bytes, None]:
    for message in first:
        yield message
    try:
        for value in values:
            yield _encode_request(route, value)
    except EtcdError:
        return  # what was understood is being answered


def _encode_request(route: Route, value: object) -> bytes:
    message = route.request.decode(value).SerializeToString()
    if len(message) > limits.GRPC_RECEIVE_BYTES_MAX:
        raise EtcdError(
            Code.RESOURCE_EXHAUSTED,
            f"grpc: received message larger than max ({len(message)} vs. {limits.GRPC_RECEIVE_BYTES_MAX})",
        )
    return message


# --- headers and errors ---------------------------------------------------------------------------


def _metadata(headers: Headers) -> HeaderMap:
    """What a gRPC client would send as metadata."""
    fields = []
    for name, value in headers.items():
        if name == "authorization":
            fields.append((name, value))
        elif name.startswith(_METADATA_PREFIX):
            fields.append((name.removeprefix(_METADATA_PREFIX), value))
    return HeaderMap(fields)


def _timeout(headers: Headers) -> float | None:
    value = headers.get("grpc-timeout")
    try:
        return parse_timeout(value)
    except EtcdError as error:
        shown = (value or b"").decode("latin-1")
        raise EtcdError(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {shown}") from error


def _deadline_exceeded() -> EtcdError:
    return EtcdError(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


def _status(error: EtcdError) -> int:
    return _HTTP_STATUSES.get(error.code, 500)


def _error_response(error: EtcdError) -> HttpResponse:
    fields = {"error": error.message, "code": int(error.code), "message": error.message}
    return HttpResponse(_status(error), _JSON, msgspec.json.encode(fields))


def _error_line(error: EtcdError) -> bytes:
    """The end of a stream: the fields of both generations of etcd's gateway."""
    status = _status(error)
    phrase = "" if status == _CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    fields = {
        "grpc_code": int(error.code),
        "http_code": status,
        "message": error.message,
        "http_status": phrase,
        "code": int(error.code),
    }
    return msgspec.json.encode({"error": fields}) + b"\n"
