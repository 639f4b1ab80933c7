"""What passes between the HTTP engine and its neighbours: the socket below, the application above."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

import msgspec


class Headers(Protocol):
    """The header fields of a request; names are lower-case."""

    def get(self, name: str) -> bytes | None: ...

    def items(self) -> list[tuple[str, bytes]]: ...


class HttpRequest(msgspec.Struct, frozen=True):
    """A whole plain request, HTTP/1.1 or 2."""

    method: str
    target: str
    """Path and query, as sent."""
    body: bytes
    headers: Headers


class HttpResponse(msgspec.Struct, frozen=True):
    """A whole response, whose length is added by the protocol, or the beginning of a stream."""

    status: int
    content_type: str
    """Empty: there is no content."""
    body: bytes
    allow: str = ""
    """The methods that the path knows, for status 405."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further ones, with lower-case names."""
    chunks: AsyncGenerator[bytes, None] | None = None
    """What follows the body, each piece as soon as it is there. Whoever got the response closes it,
    also when the client left."""


Exchange = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]
"""A call whose messages go both ways: given the client's, it makes ours. It may stop taking requests, and
it is cancelled when the client leaves."""


class Receiver(Protocol):
    """What the application puts behind one HTTP/2 stream. Called on the event loop, never again
    after `end_received` or `abandoned`, except that `abandoned` may follow `end_received`."""

    def data_received(self, data: bytes) -> None: ...

    def end_received(self) -> None: ...

    def abandoned(self) -> None:
        """The client reset the stream or its connection is gone: nobody reads an answer."""


class ConnectionProtocol(Protocol):
    """What an accepted connection tells whoever speaks on it."""

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self) -> None: ...

    def flush(self) -> None:
        """The socket takes more again."""

    def shut_down(self) -> None:
        """Finish what is asked and close."""


class Socket(Protocol):
    """What a protocol needs of its accepted connection."""

    write_paused: bool
    stopping: bool

    def switch_to(self, protocol: ConnectionProtocol) -> None:
        """From now on this one is told of what arrives, in place of the caller."""

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Return once the socket takes more."""

    def close(self) -> None:
        """Close once what was written has left."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def start_timer(self) -> None:
        """The connection is closed if no request head is complete in time."""

    def cancel_timer(self) -> None: ...
