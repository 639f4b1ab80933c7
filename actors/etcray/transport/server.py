"""A member's listener: what comes in by streams, and the answers.

Each connection has a thread that reads. A peer's messages go to the core right there; the disk is not waited
for, so the next envelope is not either. A gateway's batch is proposed right there as well, and then holds no
thread: the call is a generator (`node.waiters`), kept in a table until what it waits for is resolved, and
whoever resolves that sends the answer. All other calls may block or take long, and run on workers.

Who resolves a waiter may hold locks (`Waiter.then`), so only waits for the answers to a batch are continued
on the spot: what follows them takes no lock but the applier's condition. A change of members also waits for
a read index, and asks the core again after it: it is continued by a worker.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from etcray.node.driver import ReadWaiter
from etcray.node.waiters import Steps
from etcray.transport.addresses import StreamAddress, listen_tcp, listen_unix, prepare, read_frame
from etcray.transport.frames import Frame, FrameDecoder, FrameError, Kind, header
from etcray.transport.handshake import NONCE_BYTES, Credentials, StrangerError, admit, challenge
from etcray.transport.line import Line
from etcray_storage.limits import (
    STREAM_CALLS_MAX,
    STREAM_CONNECTIONS_MAX,
    STREAM_HANDSHAKE_SECONDS,
    STREAM_REQUEST_BYTES_MAX,
    STREAM_WORKERS_MAX,
)
from etcray_storage.types import MemberId

READ_BYTES: Final = 64 * 1024
SWEEP_SECONDS: Final = 1.0
"""How often calls are looked for that have waited too long."""


class Served(Protocol):
    """What a member does with what comes in."""

    member: MemberId
    calls: dict[int, Callable[[bytes], bytes]]
    """By their `Kind`: those that may block."""

    def hear(self, envelope: bytes) -> bytes | None:
        """Take a peer's messages; an envelope to send back, or nothing."""

    def propose(self, batch: bytes) -> Steps[bytes]:
        """Replicate a batch."""

    def fail(self, error: BaseException) -> None:
        """End the process: a defect, or a disk that cannot be trusted."""


class _Suspended(NamedTuple):
    """A call that waits."""

    steps: Steps[bytes]
    answer: Callable[[Kind, bytes], None]
    deadline: float


class _Suspension:
    """The calls that wait without a thread."""

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self._workers = workers
        self._numbers = count(1)
        self._waiting: dict[int, _Suspended] = {}
        """Whoever takes one out goes on with it: so it goes on once."""

    def go_on(self, steps: Steps[bytes], answer: Callable[[Kind, bytes], None]) -> None:
        """Up to the next wait, or to the answer."""
        try:
            wait = next(steps)
        except StopIteration as end:
            answer(Kind.ANSWER, end.value)
            return
        except Exception as error:
            answer(Kind.FAILED, describe(error))
            return
        number = next(self._numbers)
        self._waiting[number] = _Suspended(steps, answer, time.monotonic() + wait.seconds)
        if isinstance(wait.waiter, ReadWaiter):
            wait.waiter.then(lambda: self._hand_over(number))
        else:
            wait.waiter.then(lambda: self._resume(number))

    def _resume(self, number: int) -> None:
        call = self._waiting.pop(number, None)
        if call is not None:
            self.go_on(call.steps, call.answer)

    def _hand_over(self, number: int) -> None:
        with suppress(RuntimeError):  # the member is being closed
            self._workers.submit(self._resume, number)

    def sweep(self, now: float) -> None:
        """Go on with those whose time is over. On a thread that holds no lock."""
        for number, call in list(self._waiting.items()):
            if call.deadline <= now:
                self._resume(number)


class StreamServer:
    """Listens from its creation until `close`."""

    def __init__(self, served: Served, credentials: Credentials, path: Path) -> None:
        """`path` of the Unix socket; whoever listened there before does not any more."""
        self._served = served
        self._credentials = credentials
        self._path = path
        self._workers = ThreadPoolExecutor(STREAM_WORKERS_MAX, thread_name_prefix="stream-call")
        self._suspension = _Suspension(self._workers)
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._listeners: list[socket.socket] = []
        self._closed = threading.Event()
        self.address = StreamAddress(hostname=socket.gethostname(), unix_path=str(path))
        """Replaced when it begins to listen for other hosts, too."""
        self._accept_on(listen_unix(path))
        threading.Thread(target=self._sweep, name="stream-sweep", daemon=True).start()

    def listen_beyond(self, host: str) -> None:
        """Listen on a TCP port of this address, too, for actors on other hosts. Idempotent."""
        with self._lock:
            if self.address.port or self._closed.is_set():
                return
            listener = listen_tcp(host)
            port = int(listener.getsockname()[1])
            self.address = msgspec.structs.replace(self.address, host=host, port=port)
        self._accept_on(listener)

    def close(self) -> None:
        """Cut all connections. Calls that are under way get no answer. Idempotent."""
        self._closed.set()
        with self._lock:
            listeners, self._listeners = self._listeners, []
            connections = list(self._connections)
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if listeners:
            self._path.unlink(missing_ok=True)
        for connection in connections:
            connection.cut()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _accept_on(self, listener: socket.socket) -> None:
        with self._lock:
            self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener,), name="stream-accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._closed.wait(0.1):  # closed; otherwise no descriptors: there may be some later
                    return
                sys.stderr.write(f"member {self._served.member:x} cannot accept: {error}\n")
                continue
            with self._lock:
                is_full = len(self._connections) >= STREAM_CONNECTIONS_MAX or self._closed.is_set()
                if not is_full:
                    serving = _Connection(self, connection)
                    self._connections.add(serving)
            if is_full:
                connection.close()
            else:
                threading.Thread(target=serving.run, name="stream-read", daemon=True).start()

    def _sweep(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            self._suspension.sweep(time.monotonic())

    # --- for its connections ------------------------------------------------------------------

    def admit(self, connection: socket.socket) -> None:
        """The handshake. Raises StrangerError, FrameError, OSError."""
        deadline = time.monotonic() + STREAM_HANDSHAKE_SECONDS
        nonce = os.urandom(NONCE_BYTES)
        connection.settimeout(STREAM_HANDSHAKE_SECONDS)
        first = challenge(nonce)
        connection.sendall(header(Kind.CHALLENGE, 0, len(first)) + first)
        proof = read_frame(connection, Kind.PROOF, deadline)
        _, welcome = admit(self._credentials, self._served.member, nonce, proof)
        connection.sendall(header(Kind.WELCOME, 0, len(welcome)) + welcome)
        connection.settimeout(None)

    def take(self, frame: Frame, line: Line, answer: Callable[[Kind, bytes], None]) -> None:
        """What is in one frame. Raises FrameError for what makes no sense."""
        if frame.kind == Kind.MESSAGES:
            try:
                back = self._served.hear(frame.payload)
            except msgspec.DecodeError as error:
                raise FrameError(f"no envelope: {error}") from error
            if back is not None:
                line.send(Kind.MESSAGES, 0, back)
        elif frame.kind == Kind.PROPOSE:
            self._suspension.go_on(self._served.propose(frame.payload), answer)
        elif (call := self._served.calls.get(frame.kind)) is not None:
            try:
                self._workers.submit(_work, call, frame.payload, answer)
            except RuntimeError as error:
                raise FrameError("the member is being closed") from error
        else:
            raise FrameError(f"a frame of kind {frame.kind}")

    def fail(self, error: BaseException) -> None:
        """A connection's thread ended of a defect."""
        if not self._closed.is_set():
            self._served.fail(error)

    def forget(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()


class _Connection:
    """One connection that was accepted."""

    def __init__(self, server: StreamServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._line = Line(connection)
        self._calls: set[int] = set()
        """Numbers of calls that are not answered yet. Single operations on it are atomic."""

    def cut(self) -> None:
        self._line.cut()

    def run(self) -> None:
        try:
            prepare(self._connection)
            self._server.admit(self._connection)
            self._serve()
        except StrangerError as error:
            sys.stderr.write(f"a connection was refused: {error}\n")
        except (OSError, FrameError):
            pass  # it ended, or is of no further use
        except BaseException as error:
            self._server.fail(error)
            raise
        finally:
            self._line.close()
            self._server.forget(self)

    def _serve(self) -> None:
        decoder = FrameDecoder(STREAM_REQUEST_BYTES_MAX)
        while data := self._connection.recv(READ_BYTES):
            for frame in decoder.feed(data):
                if self._server.is_closed:
                    return
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        number = frame.number
        if number:
            if len(self._calls) >= STREAM_CALLS_MAX or number in self._calls:
                raise FrameError(f"call {number} beside {len(self._calls)} others")
            self._calls.add(number)

        def answer(kind: Kind, payload: bytes) -> None:
            self._calls.discard(number)
            self._line.send(kind, number, payload)

        self._server.take(frame, self._line, answer)


def _work(call: Callable[[bytes], bytes], request: bytes, answer: Callable[[Kind, bytes], None]) -> None:
    """A call, on a worker."""
    try:
        reply = call(request)
    except Exception as error:
        answer(Kind.FAILED, describe(error))
    else:
        answer(Kind.ANSWER, reply)


def describe(error: BaseException) -> bytes:
    """For whoever made the call."""
    return f"{type(error).__name__}: {error}".encode()[:1_024]
