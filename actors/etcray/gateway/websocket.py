"""A WebSocket (RFC 6455) on a path of the JSON API: one call, whose messages go both ways at any time.

Over plain HTTP the requests of a stream are read completely before its call begins. Here the client may
go on: watch more keys, cancel a watch, keep another lease alive, while answers arrive. Each message of the
client is a JSON request, text or binary; each answer is one text message, the same JSON that would
be one line of a stream's body. As in etcd's proxy the request counts as a POST to that path, and a page that
cannot set headers passes its token as `Sec-WebSocket-Protocol: Bearer, <token>`, which becomes the metadata
`authorization`. Any origin may connect, as any origin may ask over plain HTTP.

How it begins: `http1_engine` reads the request's head, `read_handshake` judges it, the application
finds the call behind the path (404 without one), and after the 101 a `WebSocket` takes the place of
`Http1` at the connection. The frames are the library's, `wsproto`, which does no I/O; the handshake is
checked here, because the head is parsed already.

How it ends: whoever has enough sends a close frame, and the call is cancelled if it still runs. The codes
are 1000 when the call is over, also after an error, which was the last message; 1001 when the gateway stops;
1009 for a message above `limits.HTTP_BODY_BYTES_MAX`; 1013 when the gateway holds too many parts of
messages; 1011 for a defect of ours; and what the library finds for frames that are none. We wait
`CLOSING_SECONDS_MAX` for the client's close frame, because closing a socket with unread bytes in it
could take ours away before it is read. The client has no way to say only that it will not ask any more.

What is bounded: a message; the messages that wait for the call (`limits.STREAM_MESSAGES_PENDING_MAX`,
`limits.STREAM_BYTES_PENDING_MAX`), above which nothing is read from the client; what waits for the
client, because the call goes on only when the socket takes more. A client that does not read is not read
from either, so its pings cannot pile up answers. We send no pings: dead clients are found by TCP keepalive.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from etcray.gateway.http_engine import Application, HeaderMap
from etcray.gateway.http_messages import Exchange, Headers, HttpRequest, Socket
from etcray_storage import limits

logger = logging.getLogger(__name__)

CLOSING_SECONDS_MAX: Final = 1.0
_VERSION: Final = b"13"
_KEY_BYTES: Final = 16
_TOKEN_PROTOCOL: Final = "Bearer"


class HandshakeError(Exception):
    """The request asks for a WebSocket, but not as RFC 6455 (section 4.2.1) says."""


def asks_for_websocket(method: str, headers: Headers) -> bool:
    return method == "GET" and "websocket" in _tokens(headers, "upgrade", lower=True)


def read_handshake(target: str, headers: Headers) -> tuple[HttpRequest, HeaderMap]:
    """The request as the application sees it, and the headers of the 101. Raise `HandshakeError`."""
    if "upgrade" not in _tokens(headers, "connection", lower=True):
        raise HandshakeError("no Connection: Upgrade")
    if headers.get("sec-websocket-version") != _VERSION:
        raise HandshakeError("Sec-WebSocket-Version is not 13")
    if headers.get("host") is None:
        raise HandshakeError("no Host")
    key = headers.get("sec-websocket-key") or b""
    try:
        key_bytes = len(binascii.a2b_base64(key, strict_mode=True))
    except ValueError:
        key_bytes = 0
    if key_bytes != _KEY_BYTES:
        raise HandshakeError("Sec-WebSocket-Key is not the base64 of 16 bytes")
    fields = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", generate_accept_token(key).decode()),
    ]
    protocols = _tokens(headers, "sec-websocket-protocol")
    if protocols[:1] == [_TOKEN_PROTOCOL]:
        fields.append(("sec-websocket-protocol", _TOKEN_PROTOCOL))
        if len(protocols) == 2:
            others = [(name, value) for name, value in headers.items() if name != "authorization"]
            token = f"{_TOKEN_PROTOCOL} {protocols[1]}".encode("latin-1")
            headers = HeaderMap([*others, ("authorization", token)])
    return HttpRequest("POST", target, b"", headers), HeaderMap(fields)


def _tokens(headers: Headers, name: str, *, lower: bool = False) -> list[str]:
    """The comma-separated values of a header, which may be there several times."""
    text = ",".join(value.decode("latin-1") for field, value in headers.items() if field == name)
    return [token.strip() for token in (text.lower() if lower else text).split(",")]


class WebSocket:
    """What stands behind a connection after the 101. Created on the event loop; it begins the call."""

    def __init__(self, owner: Socket, application: Application, exchange: Exchange) -> None:
        self._owner = owner
        self._application = application
        self._exchange = exchange
        self._frames = Connection(ConnectionType.SERVER)
        self._deaf = False
        """Broken frames came: what follows them means nothing."""
        self._message = bytearray()
        """What came of a message whose rest has not arrived. Counted by `Application.hold`."""
        self._pending: deque[bytes] = deque()
        """Whole messages that the call has not taken yet."""
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._leaving: asyncio.TimerHandle | None = None
        self._call: asyncio.Task[None] | None = loop.create_task(self._answer())

    # --- bytes in ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._deaf and self._frames.state is not ConnectionState.CLOSED:
            self._frames.receive_data(data)
            self._advance()

    def _advance(self) -> None:
        """Act on frames until the call has enough to do; the rest stays in the library's buffer."""
        for event in self._frames.events():
            if isinstance(event, CloseConnection):
                self._close_received(event)
                return
            if self._frames.state is not ConnectionState.OPEN:
                continue  # we have closed: only the client's close frame matters
            if isinstance(event, TextMessage):
                self._part_received(event.data.encode(), end=event.message_finished)
            elif isinstance(event, BytesMessage):
                self._part_received(bytes(event.data), end=event.message_finished)
            elif isinstance(event, Ping):
                self._owner.write(self._frames.send(event.response()))
            if self._full:
                self._owner.pause_reading()
                return

    def _part_received(self, part: bytes, *, end: bool) -> None:
        if len(self._message) + len(part) > limits.HTTP_BODY_BYTES_MAX:
            self._close(CloseReason.MESSAGE_TOO_BIG, "message is too large")
            return
        if not self._application.hold(len(part)):
            self._close(CloseReason.TRY_AGAIN_LATER, "too many requests")
            return
        self._message += part
        if end:
            message = bytes(self._message)
            self._forget_message()
            self._pending.append(message)
            self._pending_bytes += len(message)
            self._arrived.set()

    def _close_received(self, event: CloseConnection) -> None:
        """The client's close frame, an answer to ours, or frames that are none."""
        state = self._frames.state
        if state is ConnectionState.OPEN:
            self._deaf = True
            self._close(event.code, event.reason or "")
            return
        self._end_call()
        if state is ConnectionState.REMOTE_CLOSING:
            self._owner.write(self._frames.send(event.response()))
        self._owner.close()

    @property
    def _full(self) -> bool:
        many = len(self._pending) >= limits.STREAM_MESSAGES_PENDING_MAX
        return many or self._pending_bytes > limits.STREAM_BYTES_PENDING_MAX

    # --- the call ---------------------------------------------------------------------------------

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            while self._pending:
                was_full = self._full
                message = self._pending.popleft()
                self._pending_bytes -= len(message)
                if was_full and not self._full:
                    self._owner.resume_reading()
                    self._advance()
                yield message
            self._arrived.clear()
            await self._arrived.wait()

    async def _answer(self) -> None:
        code = CloseReason.NORMAL_CLOSURE
        try:
            async with aclosing(self._exchange(self._requests())) as responses:
                async for response in responses:
                    if self._frames.state is not ConnectionState.OPEN:
                        return
                    self._owner.write(self._frames.send(TextMessage(data=response.decode())))
                    await self._owner.drained()
        except Exception:
            logger.critical("a call over a WebSocket failed", exc_info=True)
            code = CloseReason.INTERNAL_ERROR
        self._call = None
        self._close(code)

    # --- the end ----------------------------------------------------------------------------------

    def _close(self, code: int, reason: str = "") -> None:
        """End the call and say so, once; the client's answer closes the connection."""
        self._end_call()
        if self._frames.state is ConnectionState.OPEN:
            self._owner.write(self._frames.send(CloseConnection(code=code, reason=reason)))
            self._leaving = asyncio.get_running_loop().call_later(CLOSING_SECONDS_MAX, self._owner.close)
            self._owner.resume_reading()

    def _end_call(self) -> None:
        self._forget_message()
        self._pending.clear()
        self._pending_bytes = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _forget_message(self) -> None:
        self._application.let_go(len(self._message))
        self._message = bytearray()

    def connection_lost(self) -> None:
        self._end_call()
        if self._leaving is not None:
            self._leaving.cancel()

    def flush(self) -> None:
        """Answers are written at once."""

    def shut_down(self) -> None:
        self._close(CloseReason.GOING_AWAY)
