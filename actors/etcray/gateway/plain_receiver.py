"""An HTTP/2 request that is not gRPC: the same routes as over HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from etcray.gateway.http_engine import Application, HeaderMap, RequestHead, Stream, plain_headers
from etcray.gateway.http_messages import HttpRequest
from etcray_storage import limits

logger = logging.getLogger(__name__)


class PlainReceiver:
    """Collects the body, then answers. A `Receiver`."""

    def __init__(self, head: RequestHead, stream: Stream, application: Application) -> None:
        self._head = head
        self._stream = stream
        self._application = application
        self._body = bytearray()
        self._held_bytes = 0
        """Counted by `Application.hold`."""
        self._task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._stream.consume(len(data))
        too_large = self._held_bytes + len(data) > limits.HTTP_BODY_BYTES_MAX
        if too_large or not self._application.hold(len(data)):
            self._forget_body()
            self._stream.reset()
            return
        self._body += data
        self._held_bytes += len(data)

    def end_received(self) -> None:
        request = HttpRequest(self._head.method, self._head.path, bytes(self._body), self._head.headers)
        self._body = bytearray()
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    def abandoned(self) -> None:
        self._forget_body()
        if self._task is not None:
            self._task.cancel()

    def _forget_body(self) -> None:
        self._application.let_go(self._held_bytes)
        self._body, self._held_bytes = bytearray(), 0

    async def _answer(self, request: HttpRequest) -> None:
        response = await self._application.plain_request(request)
        self._forget_body()
        stream = self._stream
        has_body = response.chunks is not None or (bool(response.body) and request.method != "HEAD")
        stream.send_head(plain_headers(response), status=response.status, end=not has_body)
        if not has_body:
            return
        stream.send_data(response.body)
        if response.chunks is not None:
            try:
                async with aclosing(response.chunks) as chunks:
                    async for chunk in chunks:
                        stream.send_data(chunk)
                        await stream.drained()
            except Exception:
                logger.critical("a stream of %s failed", request.target, exc_info=True)
                stream.reset()
                return
        stream.send_trailers(HeaderMap())
