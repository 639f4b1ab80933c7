"""HTTP/1.1 over given bytes: one request after the other. As in `http_engine`, nothing here knows gRPC,
etcd or sockets.

A client that closes its sending half may only have finished asking, or may have gone: nobody can tell.
It gets `HALF_CLOSED_SECONDS_MAX` for its answer; whatever takes longer (a lock, a watch) is cancelled
then, because waiting for a client that left would hold its place in a queue for ever.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Final

from httpunk._httpunk import H1BodyDecoder, H1BodyError, H1Codec, H1ParseError, H1RequestHead

from etcray.gateway.http_engine import Application, plain_headers
from etcray.gateway.http_messages import HttpRequest, HttpResponse, Socket
from etcray.gateway.websocket import HandshakeError, WebSocket, asks_for_websocket, read_handshake
from etcray_storage import limits

logger = logging.getLogger(__name__)

HALF_CLOSED_SECONDS_MAX: Final = 1.0
_TEXT: Final = "text/plain; charset=utf-8"


class Http1:
    """One HTTP/1.1 connection: one request after the other, nothing is read while one is answered."""

    def __init__(self, owner: Socket, application: Application) -> None:
        self._owner = owner
        self._application = application
        self._codec = H1Codec()
        self._head: H1RequestHead | None = None
        self._decoder: H1BodyDecoder | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        """Counted by `Application.hold`."""
        self._answering: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._keep_alive = True

    def data_received(self, data: bytes) -> None:
        if self._answering is not None:
            self._codec.feed(data)
            self._owner.pause_reading()
            return
        try:
            self._advance(data)
        except H1ParseError:
            status = self._codec.parse_error_status
            if status is not None:
                self._write(HttpResponse(status, _TEXT, b""), keep_alive=False)
            self._owner.close()
        except H1BodyError:
            self._owner.close()

    def _advance(self, data: bytes) -> None:
        if self._head is None:
            head = self._head = self._codec.receive_request_head(data)
            if head is None:
                return
            self._owner.cancel_timer()
            if asks_for_websocket(head.method, head.headers):
                self._become_websocket(head)
                return
            self._keep_alive = head.keep_alive and not self._owner.stopping
            if head.body_kind != "empty":
                self._decoder = H1BodyDecoder(head.body_kind, head.content_length or 0)
                self._codec.take_body_into(self._decoder)
                if head.expect_continue:
                    self._owner.write(H1Codec.continue_response())
        elif self._decoder is not None:
            self._decoder.feed(data)
        if self._decoder is None or self._collect(self._decoder):
            self._answering = asyncio.get_running_loop().create_task(self._answer())

    def _become_websocket(self, head: H1RequestHead) -> None:
        """What the client sent behind the head are frames already."""
        try:
            if head.http10 or head.body_kind != "empty":
                raise HandshakeError("not a GET of HTTP/1.1 without a body")
            request, fields = read_handshake(head.target, head.headers)
        except HandshakeError as error:
            self._refuse(400, f"bad WebSocket handshake: {error}\n".encode())
            return
        exchange = self._application.exchange(request)
        if isinstance(exchange, HttpResponse):
            self._write(exchange, keep_alive=False)
            self._owner.close()
            return
        self._owner.write(self._codec.serialize_response(101, fields, keep_alive=True))
        websocket = WebSocket(self._owner, self._application, exchange)
        self._owner.switch_to(websocket)
        websocket.data_received(self._codec.take_body())

    def _collect(self, decoder: H1BodyDecoder) -> bool:
        """Whether the body is complete. If it is too large, the connection ends."""
        while (chunk := decoder.decode()) is not None:
            if self._body_bytes + len(chunk) > limits.HTTP_BODY_BYTES_MAX:
                self._refuse(413, b"request body is too large\n")
                return False
            if not self._application.hold(len(chunk)):
                self._refuse(503, b"too many requests\n")
                return False
            self._body.append(chunk)
            self._body_bytes += len(chunk)
        if not decoder.is_complete:
            return False
        if decoder.finish()[1]:
            self._keep_alive = False  # a pipelined request behind a body: not read, so not served
        return True

    def _refuse(self, status: int, text: bytes) -> None:
        self._write(HttpResponse(status, _TEXT, text), keep_alive=False)
        self._owner.close()

    async def _answer(self) -> None:
        assert self._head is not None, "answering without a request"
        head = self._head
        request = HttpRequest(head.method, head.target, b"".join(self._body), head.headers)
        self._body = []
        response = await self._application.plain_request(request)
        if response.chunks is None:
            self._write(response, keep_alive=self._keep_alive)
        else:
            await self._write_stream(response, http10=head.http10)
        self._forget_body()
        self._answering = None
        if not self._keep_alive or self._owner.stopping:
            self._owner.close()
            return
        self._head, self._decoder = None, None
        self._codec.reset()
        self._owner.start_timer()
        self._owner.resume_reading()
        self.data_received(b"")

    async def _write_stream(self, response: HttpResponse, *, http10: bool) -> None:
        """Each piece as one chunk, no faster than the client reads. An HTTP/1.0 client learns of the end
        by the end of the connection."""
        assert response.chunks is not None, "a stream without chunks"
        if http10:
            self._keep_alive = False
        codec = self._codec
        try:
            async with aclosing(response.chunks) as chunks:
                head = codec.serialize_response(
                    response.status,
                    plain_headers(response),
                    keep_alive=self._keep_alive,
                    http10=http10,
                    chunked=True,  # the codec knows that HTTP/1.0 has no chunks
                )
                first = codec.serialize_data(response.body) if response.body else b""
                self._owner.write(head + first)
                async for chunk in chunks:
                    self._owner.write(codec.serialize_data(chunk))
                    await self._owner.drained()
            self._owner.write(codec.serialize_end() or b"")
        except Exception:
            logger.critical("a stream over HTTP/1.1 failed", exc_info=True)
            self._keep_alive = False  # the client sees a stream that was cut off

    def _write(self, response: HttpResponse, *, keep_alive: bool) -> None:
        head = self._codec.serialize_response(
            response.status,
            plain_headers(response),
            keep_alive=keep_alive,
            http10=self._head is not None and self._head.http10,
            content_length=len(response.body),
        )
        self._owner.write(self._codec.serialize_head_and_body(head, response.body))

    def eof_received(self) -> bool:
        """Whether the connection stays open for the answer to what was asked completely."""
        self._keep_alive = False
        if self._answering is None:
            return False
        self._leaving = asyncio.get_running_loop().call_later(HALF_CLOSED_SECONDS_MAX, self._owner.close)
        return True

    def connection_lost(self) -> None:
        self._forget_body()
        if self._leaving is not None:
            self._leaving.cancel()
        if self._answering is not None:
            self._answering.cancel()

    def _forget_body(self) -> None:
        self._application.let_go(self._body_bytes)
        self._body, self._body_bytes = [], 0

    def flush(self) -> None:
        """Answers are written at once."""

    def shut_down(self) -> None:
        if self._answering is None:
            self._owner.close()
