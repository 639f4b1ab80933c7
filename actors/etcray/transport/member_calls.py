"""Blocking calls of a member, one after the other on a connection: for threads that wait for their answer.

Each call has a connection to itself while it lasts, so there is nothing to tell apart. A call that is not
answered in time closes its connection: nothing is left behind that could answer somebody else.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from etcray.transport.addresses import StreamAddress, UnreachableError, dial
from etcray.transport.frames import Frame, FrameDecoder, FrameError, Kind, header
from etcray.transport.handshake import Credentials
from etcray_storage.limits import STREAM_ANSWER_BYTES_MAX
from etcray_storage.types import MemberId

IDLE_MAX: Final = 2
"""Connections to one member that wait for the next call."""

READ_BYTES: Final = 256 * 1024
_NUMBER: Final = 1


class MemberCalls:
    """The way to one member. Thread-safe."""

    def __init__(
        self,
        credentials: Credentials,
        member: MemberId,
        role: str,
        address: Callable[[], StreamAddress | None],
    ) -> None:
        """`address` is asked for each new connection."""
        self._credentials = credentials
        self._member = member
        self._role = role
        self._address = address
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []

    def call(self, kind: Kind, request: bytes, seconds: float) -> bytes:
        """The member's answer. Raises UnreachableError, also if the member could not answer."""
        connection = self._take()
        try:
            frame = self._exchange(connection, kind, request, time.monotonic() + seconds)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError | FrameError):
                raise UnreachableError(str(error) or type(error).__name__) from error
            raise
        self._give_back(connection)
        if frame.kind == Kind.FAILED:
            raise UnreachableError(frame.payload.decode(errors="replace"))
        return frame.payload

    def close(self) -> None:
        """Of idle connections; calls that are under way end by themselves."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> socket.socket:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if _is_quiet(connection):
                    return connection
                connection.close()
        address = self._address()
        if address is None:
            raise UnreachableError(f"nobody knows yet where member {self._member:x} listens")
        return dial(address, self._credentials, self._member, self._role)

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _exchange(self, connection: socket.socket, kind: Kind, request: bytes, deadline: float) -> Frame:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.sendall(header(kind, _NUMBER, len(request)) + request)
        decoder = FrameDecoder(STREAM_ANSWER_BYTES_MAX)
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = connection.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the member closed the connection")
            for frame in decoder.feed(data):
                if frame.number != _NUMBER or frame.kind not in (Kind.ANSWER, Kind.FAILED):
                    raise FrameError(f"a frame of kind {frame.kind} as an answer")
                return frame


def _is_quiet(connection: socket.socket) -> bool:
    """Whether an idle connection is still of use: its end would show as something to read."""
    try:
        connection.settimeout(0.0)
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
