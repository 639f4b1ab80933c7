"""The sending side of a connection that is shared by threads which must not wait.

A frame is handed to the kernel at once, by whichever thread has it. What the kernel does not take waits, in
order, and a thread of its own brings it out; it ends when nothing is left. The other end's pace is bounded
from both sides: too many bytes that wait, or none taken for too long, cut the connection.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from etcray.transport.frames import Kind, header
from etcray_storage.limits import STREAM_BACKLOG_BYTES_MAX, STREAM_STALLED_SECONDS


class Line:
    """Thread-safe. Whoever reads from the socket learns of its end, and closes it."""

    def __init__(
        self,
        connection: socket.socket,
        on_drained: Callable[[], None] = lambda: None,
        stalled_seconds: float = STREAM_STALLED_SECONDS,
    ) -> None:
        """`on_drained` is called, without any lock, whenever nothing waits any more."""
        self._connection = connection
        self._on_drained = on_drained
        self._stalled_seconds = stalled_seconds
        self._lock = threading.Lock()
        """Held over a write that does not wait, so for microseconds."""
        self._backlog: deque[memoryview] = deque()
        """While it is not empty, one drainer runs, and nobody else writes."""
        self._backlog_bytes = 0
        self._is_cut = False

    @property
    def is_backed_up(self) -> bool:
        """The other end has not taken everything yet."""
        return bool(self._backlog)

    def send(self, kind: Kind, number: int, payload: bytes) -> None:
        """Never waits. A broken connection takes it and says nothing: its reader finds out."""
        head = header(kind, number, len(payload))
        size = len(head) + len(payload)
        with self._lock:
            if self._is_cut:
                return
            if self._backlog:
                if self._backlog_bytes + size > STREAM_BACKLOG_BYTES_MAX:
                    self._cut()
                else:
                    self._keep(memoryview(head + payload))
                return
            try:
                sent = self._connection.sendmsg((head, payload), (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._cut()
                return
            if sent == size:
                return
            self._keep(memoryview(head + payload)[sent:])
        threading.Thread(target=self._drain, name="stream-drain", daemon=True).start()

    def cut(self) -> None:
        """End the connection, from any thread. Its reader wakes up, and closes it."""
        with self._lock:
            self._cut()

    def close(self) -> None:
        """By the reader, once: the socket is gone afterwards."""
        with self._lock:
            self._cut()
            self._connection.close()

    def _cut(self) -> None:
        self._is_cut = True
        self._backlog.clear()
        self._backlog_bytes = 0
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _keep(self, rest: memoryview) -> None:
        self._backlog.append(rest)
        self._backlog_bytes += len(rest)

    def _drain(self) -> None:
        poll = select.poll()
        with self._lock:
            if self._is_cut:
                return
            poll.register(self._connection.fileno(), select.POLLOUT)
        while True:
            # Without the lock. If the socket is closed meanwhile, its number may be another file's: then
            # the line is cut, which is looked at before anything is written.
            is_ready = bool(poll.poll(self._stalled_seconds * 1_000))
            with self._lock:
                if self._is_cut:
                    return
                if not is_ready or not self._write_backlog():
                    self._cut()
                    return
                if not self._backlog:
                    break
        self._on_drained()

    def _write_backlog(self) -> bool:
        """What the kernel takes now. False if the connection is broken."""
        try:
            while self._backlog:
                sent = self._connection.send(self._backlog[0], socket.MSG_DONTWAIT)
                self._backlog_bytes -= sent
                rest = self._backlog[0][sent:]
                if len(rest):
                    self._backlog[0] = rest
                    return True
                self._backlog.popleft()
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
