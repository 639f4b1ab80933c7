"""gRPC calls at little cost: a connection that many clients share, each call of any method.

Built on the load generator's connection, which knows frames and flow control. The answers' bytes are
kept here, and a call that was given up is cancelled and forgotten, as a client with a deadline does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, cast

from etcray_bench.load import frames
from etcray_bench.load.connection import Connection
from etcray_bench.load.streaming import OpenStream, StreamConnection
from etcray_storage.errors import Code

GRPC_PREFIX_BYTES: Final = 5
CANCEL: Final = frames.frame(frames.RST_STREAM, 0, 0, (8).to_bytes(4, "big"))
CONNECT_SECONDS_MAX: Final = 2.0

OnEnd = Callable[[bytes, int, str, float], None]
"""Told once how a call ended: the message, the gRPC code, its text, and when it was read."""


class _Call:
    __slots__ = ("called", "on_end", "parts")

    def __init__(self, called: float, on_end: OnEnd) -> None:
        self.called = called
        self.on_end = on_end
        self.parts: list[bytes] = []


class CallConnection(Connection):
    """Single calls. When the connection is lost, they all end as Unavailable."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(frames.RequestHeaders("/", endpoint), lambda client, now, error: None)
        self._endpoint = endpoint
        self._calls: dict[int, _Call] = {}
        """By stream, so in the order in which they were called."""
        self._short: deque[tuple[str, bytes, OnEnd]] = deque()
        """Calls that wait for the server's credit."""

    @property
    def is_lost(self) -> bool:
        return self.lost.done()

    def call(self, path: str, message: bytes, on_end: OnEnd) -> None:
        """Send it with what else is sent in this turn of the loop; `flush` at the end of yours."""
        length = len(message) + GRPC_PREFIX_BYTES
        if length > self._credit:
            self._short.append((path, message, on_end))
            return
        self._credit -= length
        self._stream = stream = self._stream + 2
        self._calls[stream] = _Call(perf_counter(), on_end)
        if stream == 1:
            self._out.append(
                frames.first_request(stream, frames.RequestHeaders(path, self._endpoint), message)
            )
            return
        name = path.encode()
        block = b"\x83\x86\x04" + bytes((len(name),)) + name + b"\xc0\xbf\xbe"
        self._out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block))
        self._out.append(frames.grpc_data(stream.to_bytes(4, "big"), message))

    def flush(self) -> None:
        self._flush()

    def give_up(self, called_before: float) -> None:
        """Cancel what was called before then; it ends as DeadlineExceeded."""
        late: list[_Call] = []
        for stream, call in self._calls.items():
            if call.called >= called_before:
                break
            late.append(call)
            self._out.append(CANCEL[:5] + stream.to_bytes(4, "big") + CANCEL[9:])
        for stream in list(self._calls)[: len(late)]:
            del self._calls[stream]
        self._flush()
        now = perf_counter()
        for call in late:
            call.on_end(b"", Code.DEADLINE_EXCEEDED, "given up by the client", now)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        now = perf_counter()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.on_end(b"", Code.UNAVAILABLE, f"connection lost: {error}", now)
        short, self._short = self._short, deque()
        for _, _, on_end in short:
            on_end(b"", Code.UNAVAILABLE, f"connection lost: {error}", now)

    def _on_other_data(self, stream: int, payload: bytes, now: float) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.parts.append(payload)

    def _over(self, stream: int, now: float, error: str | None) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        if error is None:
            call.on_end(b"".join(call.parts)[GRPC_PREFIX_BYTES:], Code.OK, "", now)
            return
        text, marker, number = error.rpartition(" (status ")
        if marker:
            call.on_end(b"", int(number.removesuffix(")")), text, now)
        else:
            call.on_end(b"", Code.UNAVAILABLE, error, now)

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == frames.GOAWAY:
            if self._transport is not None:
                self._transport.abort()
            return
        super()._on_control(kind, flags, stream, payload, now)
        if kind == frames.WINDOW_UPDATE and self._short:
            short, self._short = self._short, deque()
            for path, message, on_end in short:
                self.call(path, message, on_end)


async def connect(endpoint: str) -> CallConnection:
    """Raises OSError (TimeoutError is one) if nobody serves there."""
    return cast(CallConnection, await _connect(endpoint, lambda: CallConnection(endpoint)))


async def _connect(endpoint: str, protocol: Callable[[], Connection]) -> Connection:
    def made() -> Connection:
        connection = protocol()
        for future in (connection.ready, connection.lost):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # Looked at.
        return connection

    host, _, port = endpoint.rpartition(":")
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        _, connection = await asyncio.get_running_loop().create_connection(made, host, int(port))
        try:
            await connection.ready
        except BaseException:
            connection.close()
            raise
    return connection


class OneStream:
    """A stream of answers to one message. `lost` is done when it has ended, however it did."""

    def __init__(self, connection: StreamConnection, stream: OpenStream) -> None:
        self._connection = connection
        self.stream = stream
        self.lost = connection.lost

    def close(self) -> None:
        self._connection.close()


class MessageReader:
    """Hands each message of a stream to a function."""

    def __init__(self, take: Callable[[bytes, float], None]) -> None:
        self._take = take

    def received(self, message: bytes, now: float) -> None:
        self._take(message, now)


async def open_stream(
    endpoint: str, path: str, message: bytes, take: Callable[[bytes, float], None]
) -> OneStream:
    """Raises OSError if nobody serves there."""
    headers = frames.RequestHeaders(path, endpoint)
    connection = cast(StreamConnection, await _connect(endpoint, lambda: StreamConnection(headers)))
    stream = connection.open(MessageReader(take))
    stream.send(message)
    return OneStream(connection, stream)
