"""gRPC calls at little cost: a connection that many clients share, each call of any method.

Built on the load generator's connection, which knows frames and flow control. The answers' bytes are
kept here, and a call that was given up is cancelled and forgotten, as a client with a deadline does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from etcray_bench.load.connection import Call, Connection
from etcray_bench.load.streaming import OpenStream, StreamConnection
from etcray_storage.errors import Code

GIVEN_UP: Final = "given up by the client"
CONNECT_SECONDS_MAX: Final = 2.0

OnEnd = Callable[[bytes, int, str, float], None]
"""Told once how a call ended: the message, the gRPC code, its text, and when it was read."""


class _Call(Call):
    """One call: ends once, and is then forgotten."""

    __slots__ = ("_on_end",)

    def __init__(self, on_end: OnEnd) -> None:
        super().__init__()
        self._on_end = on_end

    def answered(self, message: bytes, now: float) -> None:
        self._on_end(message, Code.OK, "", now)

    def failed(self, error: str, now: float) -> None:
        if error == GIVEN_UP:
            self._on_end(b"", Code.DEADLINE_EXCEEDED, error, now)
            return
        text, marker, number = error.rpartition(" (status ")
        if marker:
            self._on_end(b"", int(number.removesuffix(")")), text, now)
        else:
            self._on_end(b"", Code.UNAVAILABLE, error, now)


class CallConnection(Connection):
    """Single calls. When the connection is lost, they all end as Unavailable."""

    @property
    def is_lost(self) -> bool:
        return self.lost.done()

    def call(self, path: str, message: bytes, on_end: OnEnd) -> None:
        """Send it with what else is sent in this turn of the loop."""
        self.begin(_Call(on_end), path, message)

    def give_up(self, called_before: float) -> None:
        """Cancel what was called before then; it ends as DeadlineExceeded."""
        self.expire(called_before, GIVEN_UP)


async def connect(endpoint: str) -> CallConnection:
    """Raises OSError (TimeoutError is one) if nobody serves there."""
    return cast(CallConnection, await _connect(endpoint, lambda: CallConnection(endpoint)))


async def _connect(endpoint: str, protocol: Callable[[], Connection]) -> Connection:
    host, _, port = endpoint.rpartition(":")
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        _, connection = await asyncio.get_running_loop().create_connection(protocol, host, int(port))
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
    connection = cast(StreamConnection, await _connect(endpoint, lambda: StreamConnection(endpoint)))
    stream = connection.open(path, MessageReader(take))
    stream.send(message)
    return OneStream(connection, stream)
