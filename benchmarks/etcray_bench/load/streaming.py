"""Streams that stay open, many on one connection: what a watching client costs at least.

A stream's messages are handed over whole, as bytes, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from etcray_bench.load import frames
from etcray_bench.load.connection import GRPC_PREFIX_BYTES, Connection
from etcray_bench.load.errors import ConnectError, LoadError

CONNECT_SECONDS_MAX: Final = 5.0

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
        """With what else is sent in this turn of the loop."""
        self.waiting.append(message)
        self._connection.send_waiting(self)

    def received(self, payload: bytes, now: float) -> None:
        if self.rest:
            payload = self.rest + payload
        at, end = 0, len(payload)
        while end - at >= GRPC_PREFIX_BYTES:
            start = at + GRPC_PREFIX_BYTES
            after = start + int.from_bytes(payload[at + 1 : start], "big")
            if after > end:
                break
            self.reader.received(payload[start:after], now)
            at = after
        self.rest = payload[at:]


class StreamConnection(Connection):
    """Carries open streams besides single calls. What a reader raises, and the end of any stream, ends
    the connection: `lost` then says why."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._streams: dict[int, OpenStream] = {}
        self._short: dict[OpenStream, None] = {}
        """Streams that have something to send and no credit."""

    def open(self, path: str, reader: Reader) -> OpenStream:
        self._stream += 2
        number = self._stream
        stream = OpenStream(self, number, reader, self.stream_credit)
        self._streams[number] = stream
        self._out.append(frames.opening(number, self._headers.block(path)))
        return stream

    def send_waiting(self, stream: OpenStream) -> None:
        waiting = stream.waiting
        while waiting:
            size = len(waiting[0]) + GRPC_PREFIX_BYTES
            if size > min(stream.credit, self._credit):
                self._short[stream] = None
                break
            stream.credit -= size
            self._credit -= size
            self._out.append(frames.message_data(stream.number, waiting.popleft()))
        if not self._flush_comes:
            self._flush_soon()

    def _on_other_data(self, stream: int, payload: bytes, now: float) -> None:
        found = self._streams.get(stream)
        if found is None:
            return
        try:
            found.received(payload, now)
        except (LoadError, ValueError) as error:
            self._lose(error)

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
        if stream in self._streams:
            self._lose(ConnectionError(f"a stream was ended by the server: {error or 'without an error'}"))
        else:
            super()._over(stream, now, error)


async def connect(endpoint: str) -> StreamConnection:
    """Raises ConnectError, which says what listens there, or that nobody does."""
    host, _, port = endpoint.rpartition(":")
    connection: StreamConnection | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, connection = await asyncio.get_running_loop().create_connection(
                partial(StreamConnection, endpoint), host, int(port)
            )
            await connection.ready
    except TimeoutError as error:
        raise ConnectError(
            f"{endpoint} does not answer as a gRPC server within {CONNECT_SECONDS_MAX} s"
        ) from error
    except OSError as error:
        if connection is None:
            raise ConnectError(f"nothing listens at {endpoint}: {error}") from error
        raise ConnectError(f"what listens at {endpoint} is not a gRPC server: {error}") from error
    finally:
        # A timeout has cancelled `ready`. What is not closed here, uvloop waits for when its loop is closed.
        if connection is not None and (connection.ready.cancelled() or not connection.ready.done()):
            connection.close()
    return connection


async def connect_all(endpoints: Sequence[str], count: int) -> list[StreamConnection]:
    """So many connections, spread over the endpoints."""
    return [await connect(endpoints[number % len(endpoints)]) for number in range(count)]


async def hold(connections: Sequence[Connection], until: asyncio.Future[None], seconds: float) -> None:
    """Until the future is done or so much time passed; raises as soon as a connection is lost."""
    lost = [connection.lost for connection in connections]
    done, _ = await asyncio.wait([*lost, until], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()
