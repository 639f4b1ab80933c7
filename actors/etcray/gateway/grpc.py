"""gRPC calls over HTTP/2 streams: the table of methods, and the life of a call.

The texts of transport errors are grpc-go's, because that is what etcd's clients see from etcd. Nothing
here knows etcd's services: they register their methods with a `Router`.

A unary handler gets the request's bytes and returns the response's. A direct handler is a unary one that
runs in no task: it starts the work and gives its answer to the call later, from a callback. The calls that
come by the thousand are such ones, because a task with its coroutines and its future costs a third of all
that a call costs here. A streaming handler is an async generator over response messages. Tasks are
cancelled at their current await when the client leaves or the deadline passes, so cleanup belongs into
`finally`; a direct handler is told nothing, but its answer is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol

from etcray.gateway.framing import (
    Decompressor,
    Deframer,
    find_decompressor,
    frame,
    parse_timeout,
    status_trailers,
    whole_message,
)
from etcray.gateway.http_engine import (
    HeaderMap,
    RequestHead,
    Stream,
)
from etcray.gateway.http_messages import Exchange, HttpRequest, HttpResponse, Receiver
from etcray.gateway.plain_receiver import PlainReceiver
from etcray_storage import limits
from etcray_storage.errors import REQUEST_TOO_MANY_REQUESTS, Code, EtcdError, error_by_number

logger = logging.getLogger(__name__)

_HEADERS: Final = HeaderMap([("content-type", "application/grpc")])
_TRAILERS_OK: Final = HeaderMap([("grpc-status", "0")])


class Call:
    """What a handler may know about its call besides the request."""

    __slots__ = ("_headers", "path")

    def __init__(self, path: str, headers: HeaderMap) -> None:
        self.path = path
        self._headers = headers

    def metadata(self, name: str) -> str | None:
        """The first value of this lower-case name."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")


class Answer(Protocol):
    """Where a direct handler's answer goes. It is given once, by one of the two methods, or never when the
    call is over already."""

    @property
    def is_over(self) -> bool:
        """Nobody waits any more: the client left, or the deadline passed."""

    def respond(self, response: bytes) -> None: ...

    def fail(self, error: EtcdError) -> None: ...


UnaryHandler = Callable[[bytes, Call], Awaitable[bytes]]
DirectHandler = Callable[[bytes, Answer], None]
"""Returns at once. Raises `EtcdError` for a request that is refused at once."""
ServerStreamHandler = Callable[[bytes, Call], AsyncGenerator[bytes, None]]
StreamHandler = Callable[[AsyncIterator[bytes], Call], AsyncGenerator[bytes, None]]
Admission = Callable[[Call], Awaitable[None] | None]
PlainHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]
ExchangeFinder = Callable[[HttpRequest], Exchange | HttpResponse]


class Router:
    """The methods that this server has, and what happens before each of them. An `Application`."""

    def __init__(self, plain: PlainHandler, admission: Admission) -> None:
        self._plain = plain
        self.admission = admission
        """Asked before every handler. None admits the call; something else is awaited, and refuses the call
        by raising `EtcdError`."""
        self.exchange: ExchangeFinder = _no_exchange
        """Finds the call behind a WebSocket."""
        self._services: set[str] = set()
        self.unary_handlers: dict[str, UnaryHandler] = {}
        """All unary methods, the direct ones too."""
        self.direct_handlers: dict[str, DirectHandler] = {}
        self.stream_handlers: dict[str, StreamHandler] = {}
        self.call_count = 0
        self.incomplete_bytes = 0
        """Parts of messages that wait for their rest, over all calls, and bodies of plain requests."""

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self._register(path)
        self.unary_handlers[path] = handler

    def direct(self, path: str, handler: DirectHandler) -> None:
        self.unary(path, awaited(handler))
        self.direct_handlers[path] = handler

    def server_stream(self, path: str, handler: ServerStreamHandler) -> None:
        """One request, any number of responses."""

        async def run(requests: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
            async for request in requests:
                async with aclosing(handler(request, call)) as responses:
                    async for response in responses:
                        yield response
                return
            raise EtcdError(Code.INTERNAL, "grpc: no request message was received")

        self.stream(path, run)

    def stream(self, path: str, handler: StreamHandler) -> None:
        """Any number of requests and responses."""
        self._register(path)
        self.stream_handlers[path] = handler

    def _register(self, path: str) -> None:
        assert path not in self.unary_handlers, f"{path} is registered twice"
        assert path not in self.stream_handlers, f"{path} is registered twice"
        self._services.add(path.rpartition("/")[0])

    def stream_opened(self, head: RequestHead, stream: Stream) -> Receiver:
        content_type = head.headers.get("content-type") or b""
        if not content_type.startswith(b"application/grpc"):
            return PlainReceiver(head, stream, self)
        self.call_count += 1
        if head.method != "POST":
            return _refuse(stream, EtcdError(Code.INTERNAL, f"invalid gRPC request method {head.method!r}"))
        try:
            seconds = parse_timeout(head.headers.get("grpc-timeout"))
            inflate = find_decompressor(head.headers.get("grpc-encoding"))
        except EtcdError as error:
            return _refuse(stream, error)
        unary = self.unary_handlers.get(head.path)
        if unary is not None:
            direct = self.direct_handlers.get(head.path)
            return _UnaryReceiver(head, stream, self, unary, direct, inflate, seconds)
        handler = self.stream_handlers.get(head.path)
        if handler is not None:
            return _StreamReceiver(head, stream, self, handler, inflate, seconds)
        return _refuse(stream, self.unknown_method(head.path))

    def unknown_method(self, path: str) -> EtcdError:
        """What a call of a method that is not here is answered with."""
        service, _, method = path.rpartition("/")
        if service in self._services:
            return EtcdError(
                Code.UNIMPLEMENTED, f"unknown method {method} for service {service.removeprefix('/')}"
            )
        return EtcdError(Code.UNIMPLEMENTED, f"unknown service {service.removeprefix('/')}")

    async def admit(self, call: Call) -> None:
        """For callers in a task. Raises `EtcdError` if the call is refused."""
        if (admission := self.admission(call)) is not None:
            await admission

    async def plain_request(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._plain(request)
        except Exception:
            logger.critical("handler of %s %s failed", request.method, request.target, exc_info=True)
            return HttpResponse(500, "text/plain; charset=utf-8", b"Internal Server Error\n")

    def hold(self, count: int) -> bool:
        if self.incomplete_bytes + count > limits.REQUESTS_INCOMPLETE_BYTES_MAX:
            return False
        self.incomplete_bytes += count
        return True

    def let_go(self, count: int) -> None:
        self.incomplete_bytes -= count
        assert self.incomplete_bytes >= 0, f"{self.incomplete_bytes} bytes are held"


class _FutureAnswer:
    """The answer of a direct handler, for somebody in a task."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[bytes]) -> None:
        self._future = future

    @property
    def is_over(self) -> bool:
        return self._future.done()

    def respond(self, response: bytes) -> None:
        self._future.set_result(response)

    def fail(self, error: EtcdError) -> None:
        self._future.set_exception(error)


def awaited(handler: DirectHandler) -> UnaryHandler:
    """The same handler, for callers that wait in a task of their own."""

    async def run(request: bytes, _call: Call) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        handler(request, _FutureAnswer(future))
        return await future

    return run


def _no_exchange(_: HttpRequest) -> HttpResponse:
    return HttpResponse(404, "text/plain; charset=utf-8", b"Not Found\n")


class _Discard:
    """The call is answered; what the client still sends is dropped."""

    def data_received(self, data: bytes) -> None:
        return

    def end_received(self) -> None:
        return

    def abandoned(self) -> None:
        return


def _refuse(stream: Stream, error: EtcdError) -> Receiver:
    stream.send_head(status_trailers(error, with_head=True), end=True)
    return _Discard()


class _CallReceiver:
    """What unary and streaming calls share: the task that answers, and its three early ends."""

    __slots__ = (
        "_deadline",
        "_deframer",
        "_incomplete_bytes",
        "_inflate",
        "call",
        "head_sent",
        "router",
        "stream",
        "task",
    )

    def __init__(
        self, head: RequestHead, stream: Stream, router: Router, inflate: Decompressor | None,
        seconds: float | None,
    ) -> None:  # fmt: skip
        self.call = Call(head.path, head.headers)
        self.stream = stream
        self.router = router
        self._inflate = inflate
        self._deframer: Deframer | None = None
        """Made when it is needed: most requests arrive in one piece."""
        self.task: asyncio.Task[None] | None = None
        self.head_sent = False
        self._incomplete_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._deadline_passed)

    def abandoned(self) -> None:
        self._finish()

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises `EtcdError`, after which the call has to end."""
        if self._deframer is None:
            self._deframer = Deframer(self._inflate)
        messages = self._deframer.feed(data)
        self._account(self._deframer.incomplete_bytes)
        if self.router.incomplete_bytes > limits.REQUESTS_INCOMPLETE_BYTES_MAX and self._incomplete_bytes:
            raise error_by_number(REQUEST_TOO_MANY_REQUESTS.number)
        return messages

    @property
    def is_inside_message(self) -> bool:
        return self._deframer is not None and self._deframer.incomplete_bytes > 0

    def _account(self, incomplete_bytes: int) -> None:
        self.router.incomplete_bytes += incomplete_bytes - self._incomplete_bytes
        self._incomplete_bytes = incomplete_bytes

    def _deadline_passed(self) -> None:
        self.fail(EtcdError(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))

    def _finish(self) -> None:
        if self._incomplete_bytes:
            self._account(0)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def fail(self, error: EtcdError) -> None:
        """End the call with this status."""
        if not self.stream.closed:
            if self.head_sent:
                self.stream.send_trailers(status_trailers(error))
            else:
                self.stream.send_head(status_trailers(error, with_head=True), end=True)
        self._finish()

    def ended(self) -> None:
        """The handler is done: there is nothing left to cancel."""
        if self._incomplete_bytes:
            self._account(0)
        self.task = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def crashed(self, error: Exception) -> None:
        """A defect of ours: the client gets an error, the log gets the story, the gateway lives."""
        logger.critical("handler of %s failed", self.call.path, exc_info=error)
        self.ended()
        self.fail(EtcdError(Code.INTERNAL, f"etcray: internal error ({type(error).__name__})"))


class _UnaryReceiver(_CallReceiver):
    """One request message, one response message. An `Answer`."""

    __slots__ = ("_direct", "_handler", "_request", "is_over")

    def __init__(
        self, head: RequestHead, stream: Stream, router: Router, handler: UnaryHandler,
        direct: DirectHandler | None, inflate: Decompressor | None, seconds: float | None,
    ) -> None:  # fmt: skip
        super().__init__(head, stream, router, inflate, seconds)
        self._handler = handler
        self._direct = direct
        self._request: bytes | None = None
        self.is_over = False

    def data_received(self, data: bytes) -> None:
        self.stream.consume(len(data))
        if self._request is None and self._deframer is None:
            self._request = whole_message(data)
            if self._request is not None:
                return
        try:
            messages = self.receive(data)
        except EtcdError as error:
            self.fail(error)
            return
        if messages:
            if self._request is not None or len(messages) > 1:
                self.fail(EtcdError(Code.INTERNAL, "grpc: a unary call received more than one message"))
                return
            self._request = messages[0]

    def end_received(self) -> None:
        request = self._request
        if request is None or self.is_inside_message:
            self.fail(EtcdError(Code.INTERNAL, "grpc: the request ended inside a message"))
            return
        admission = self.router.admission(self.call)
        if self._direct is None or admission is not None:
            self.task = asyncio.get_running_loop().create_task(self._answer(request, admission))
            return
        try:
            self._direct(request, self)
        except EtcdError as error:
            self.fail(error)
        except Exception as error:
            self.crashed(error)

    async def _answer(self, request: bytes, admission: Awaitable[None] | None) -> None:
        try:
            if admission is not None:
                await admission
            response = await self._handler(request, self.call)
        except EtcdError as error:
            self.ended()
            self.fail(error)
        except Exception as error:
            self.crashed(error)
        else:
            self.respond(response)

    def respond(self, response: bytes) -> None:
        try:
            self.ended()
            self.stream.respond(_HEADERS, frame(response), _TRAILERS_OK)
        except Exception as error:  # whoever settles a batch has other calls to answer
            self.crashed(error)

    def _finish(self) -> None:
        self.is_over = True
        super()._finish()


class _StreamReceiver(_CallReceiver):
    """A streaming call. Messages wait in a bounded queue; a client that is faster than the handler
    is stopped by HTTP/2 flow control, and a handler that is faster than its client waits."""

    __slots__ = ("_arrived", "_ended", "_handler", "_held_bytes", "_message_bytes", "_messages")

    def __init__(
        self, head: RequestHead, stream: Stream, router: Router, handler: StreamHandler,
        inflate: Decompressor | None, seconds: float | None,
    ) -> None:  # fmt: skip
        super().__init__(head, stream, router, inflate, seconds)
        self._handler = handler
        self._messages: deque[bytes] = deque()
        self._message_bytes = 0
        """In `_messages`."""
        self._held_bytes = 0
        """Received, but the client may not yet send as many more."""
        self._ended = False
        self._arrived = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._answer())

    def data_received(self, data: bytes) -> None:
        try:
            messages = self.receive(data)
        except EtcdError as error:
            self.fail(error)
            return
        self._messages.extend(messages)
        self._message_bytes += sum(map(len, messages))
        self._held_bytes += len(data)
        self._release()
        self._arrived.set()

    def _release(self) -> None:
        few = len(self._messages) <= limits.STREAM_MESSAGES_PENDING_MAX
        small = self._message_bytes <= limits.STREAM_BYTES_PENDING_MAX
        if self._held_bytes and few and (small or not self._messages):
            self.stream.consume(self._held_bytes)
            self._held_bytes = 0

    def end_received(self) -> None:
        if self.is_inside_message:
            self.fail(EtcdError(Code.INTERNAL, "grpc: the request ended inside a message"))
            return
        self._ended = True
        self._arrived.set()

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._message_bytes -= len(message)
                self._release()
                yield message
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _answer(self) -> None:
        try:
            await self.router.admit(self.call)
            async with aclosing(self._handler(self._requests(), self.call)) as responses:
                async for response in responses:
                    if not self.head_sent:
                        self.head_sent = True
                        self.stream.send_head(_HEADERS)
                    self.stream.send_data(frame(response))
                    await self.stream.drained()
        except EtcdError as error:
            self.ended()
            self.fail(error)
        except Exception as error:
            self.crashed(error)
        else:
            self.ended()
            if not self.head_sent:
                self.stream.send_head(_HEADERS)
            self.stream.send_trailers(_TRAILERS_OK)
