"""The listening socket and its connections: one port for HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final, cast

from etcray.gateway.http1_engine import Http1
from etcray.gateway.http_engine import Application, Http2, speaks_http2
from etcray.gateway.http_messages import ConnectionProtocol
from etcray_storage import limits
from etcray_storage.errors import ListenError

HEAD_SECONDS_MAX: Final = 30.0
"""How long an HTTP/1.1 connection may take for a request head, or stay silent between requests."""


class _Connection(asyncio.Protocol):
    """One accepted socket. The first bytes tell which protocol the client speaks."""

    def __init__(self, server: HttpServer, application: Application) -> None:
        self._server = server
        self._application = application
        self._transport: asyncio.Transport | None = None
        self._protocol: ConnectionProtocol | None = None
        self._opening = b""
        self._timer: asyncio.TimerHandle | None = None
        self.write_paused = False
        self._reading_held = False
        """The protocol wants nothing more to arrive."""
        self._writable: asyncio.Future[None] | None = None
        """What `drained` waits for."""
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the base class
        if not self._server.admit(self):
            self.abort()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.start_timer()

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.data_received(data)
            return
        self._opening += data
        http2 = speaks_http2(self._opening)
        if http2 is None:
            return
        opening, self._opening = self._opening, b""
        if http2:
            self.cancel_timer()
            self._protocol = Http2(self, self._application)
        else:
            self._protocol = Http1(self, self._application)
        self._protocol.data_received(opening)

    def connection_lost(self, exc: Exception | None) -> None:
        self.cancel_timer()
        self._server.forget(self)
        self._transport = None
        self._wake_writer()
        if self._protocol is not None:
            self._protocol.connection_lost()

    def eof_received(self) -> bool:
        return isinstance(self._protocol, Http1) and self._protocol.eof_received()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._pause_or_read()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake_writer()
        self._pause_or_read()
        if self._protocol is not None:
            self._protocol.flush()

    def _wake_writer(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    async def drained(self) -> None:
        if self.write_paused and self._transport is not None:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)

    def switch_to(self, protocol: ConnectionProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_reading(self) -> None:
        self._reading_held = True
        self._pause_or_read()

    def resume_reading(self) -> None:
        self._reading_held = False
        self._pause_or_read()

    def _pause_or_read(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._reading_held or self.write_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def start_timer(self) -> None:
        self.cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS_MAX, self.close)

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close once what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def shut_down(self) -> None:
        self.stopping = True
        if self._protocol is None:
            self.close()
        else:
            self._protocol.shut_down()


class HttpServer:
    """The listening socket and its connections."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._all_closed = asyncio.Event()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    async def listen(self, host: str, port: int) -> int:
        """Bind this host only and return the port, which is the system's choice for port 0.
        Raise `ListenError` when the address cannot be had."""
        assert self._listener is None, "already listening"
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                lambda: _Connection(self, self._application), host, port, reuse_address=True, backlog=1024
            )
        except OSError as error:
            raise ListenError(_listen_advice(host, port, error)) from error
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self, grace_seconds: float) -> None:
        """Take no new connections, say GOAWAY, let running requests finish; then cut what is left."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.shut_down()
        try:
            async with asyncio.timeout(grace_seconds):
                while self._connections:
                    self._all_closed.clear()
                    await self._all_closed.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()

    def admit(self, connection: _Connection) -> bool:
        if self._listener is None or len(self._connections) >= limits.CONNECTIONS_MAX:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()


def _listen_advice(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {where}: the port is in use. Stop what listens there, or choose another port"
        )
    if error.errno == errno.EACCES:
        return f"cannot listen on {where}: not permitted. Choose a port above 1023"
    return f"cannot listen on {where}: {error.strerror or error}. Choose an address of this machine"
