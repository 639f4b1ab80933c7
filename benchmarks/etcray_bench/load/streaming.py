"""Streams that stay open, many on one connection: what a watching client costs at least.

A stream's messages are handed over whole, as bytes, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from etcray_bench.load import frames
from etcray_bench.load.connection import Connection, NextMessage

CONNECT_SECONDS_MAX: Final = 5.0
PREFIX_BYTES: Final = 5
"""gRPC's before each message: whether it is compressed, and its length."""

ConnectionT = TypeVar("ConnectionT", bound=Connection)


class Reader(Protocol):
    """Takes one stream's messages. `now` is when the bytes were read from the socket."""

    def received(self, message: bytes, now: float) -> None: ...


class OpenStream:
    """One stream. What it sends waits here while the server gives it no credit."""

    __slots__ = ("_connection", "credit", "number", "reader", "rest", "waiting")

    def __init__(self, connection: StreamConnection, number: int, reader: Reader, credit: int) -> None:
        self._connection = connection
        self.number = number
        self.reader = reader
        self.credit = credit
        self.rest = b""
        """The beginning of a message whose end was not received yet."""
        self.waiting: deque[bytes] = deque()

    def send(self, message: bytes) -> None:
        self.waiting.append(message)
        self._connection.send_waiting(self)

    def received(self, payload: bytes, now: float) -> None:
        if self.rest:
            payload = self.rest + payload
        at, end = 0, len(payload)
        while end - at >= PREFIX_BYTES:
            start = at + PREFIX_BYTES
            after = start + int.from_bytes(payload[at + 1 : start], "big")
            if after > end:
                break
            self.reader.received(payload[start:after], now)
            at = after
        self.rest = payload[at:]


class StreamConnection(Connection):
    """Carries open streams only, all of one method."""

    def __init__(self, headers: frames.RequestHeaders) -> None:
        super().__init__(headers, lambda client, now, error: None)
        self._streams: dict[int, OpenStream] = {}
        self._short: dict[OpenStream, None] = {}
        """Streams that have something to send and no credit."""

    def open(self, reader: Reader) -> OpenStream:
        self._stream += 2
        number = self._stream
        stream = OpenStream(self, number, reader, self.stream_credit)
        self._streams[number] = stream
        self._out.append(frames.opening(number, self._headers, first=number == 1))
        self._flush()
        return stream

    def send_waiting(self, stream: OpenStream) -> None:
        waiting = stream.waiting
        while waiting:
            size = len(waiting[0]) + PREFIX_BYTES
            if size > min(stream.credit, self._credit):
                self._short[stream] = None
                break
            stream.credit -= size
            self._credit -= size
            self._out.append(frames.message_data(stream.number, waiting.popleft()))
        self._flush()

    def _on_other_data(self, stream: int, payload: bytes, now: float) -> None:
        found = self._streams.get(stream)
        assert found is not None, f"data of stream {stream}, which nobody opened"
        found.received(payload, now)

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        super()._on_control(kind, flags, stream, payload, now)
        if kind == frames.WINDOW_UPDATE:
            if stream in self._streams:
                self._streams[stream].credit += int.from_bytes(payload, "big")
            short, self._short = self._short, {}
            for waiting in short:
                self.send_waiting(waiting)

    def _over(self, stream: int, now: float, error: str | None) -> None:
        """No stream ends before the client says so."""
        if not self.lost.done():
            self.lost.set_exception(ConnectionError(f"stream {stream} ended: {error}"))


async def connect(endpoint: str, method: str, next_message: NextMessage) -> Connection:
    """For single requests."""
    return await _connect(
        endpoint, partial(Connection, frames.RequestHeaders(method, endpoint), next_message)
    )


async def connect_streams(endpoints: Sequence[str], count: int, method: str) -> list[StreamConnection]:
    """For open streams; spread over the endpoints."""
    return [
        await _connect(endpoint, partial(StreamConnection, frames.RequestHeaders(method, endpoint)))
        for endpoint in (endpoints[number % len(endpoints)] for number in range(count))
    ]


async def _connect(endpoint: str, protocol: Callable[[], ConnectionT]) -> ConnectionT:
    host, _, port = endpoint.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(protocol, host, int(port))
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        await connection.ready
    return connection


async def hold(connections: Sequence[Connection], until: asyncio.Future[None], seconds: float) -> None:
    """Until the future is done or so much time passed; raises as soon as a connection is lost."""
    lost = [connection.lost for connection in connections]
    done, _ = await asyncio.wait([*lost, until], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()
