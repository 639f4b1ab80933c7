"""A member's streams to its peers: what leaves the outboxes when the driver's mutex is let go of.

Messages for peers are put into their outboxes under the driver's mutex (`node.peers`). With Ray, a thread for
each peer takes them from there, which has to be woken up first. Here the thread that lets go of the mutex
does it: `DriverMutex` is that mutex, and when it is released what is waiting is written to the sockets. So
an append leaves on the thread that proposed, and an ack on the log writer's, which has just synced.

Several threads may come at once. For each peer one of them writes, and takes along what the others put into
the outbox meanwhile; they do not wait for it. So envelopes to one peer leave in order:

1. A puts m1 into the outbox, takes `_sending` and writes m1. 2. B puts m2 into the outbox, finds `_sending`
taken, and goes. 3. A releases `_sending`, looks at the outbox again, and finds m2.

If B looks between A's last look and A's release, then B's m2 was in the outbox before A's next look, because
A always looks after the release.

While a peer takes nothing, messages gather in its outbox, which drops the oldest; so do they while there is
no connection. The thread that each peer has here dials, waits for the connection's end, and dials again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from etcray.node.peers import (
    RETRY_PAUSE_SECONDS,
    SNAPSHOT_CHUNK_TIMEOUT_SECONDS,
    Peer,
    Peers,
    PeerUnreachableError,
)
from etcray.transport.addresses import StreamAddress, UnreachableError, dial
from etcray.transport.frames import FrameDecoder, FrameError, Kind
from etcray.transport.handshake import Credentials
from etcray.transport.line import Line
from etcray.transport.member_calls import MemberCalls
from etcray_storage.limits import STREAM_REQUEST_BYTES_MAX
from etcray_storage.types import MemberId

READ_BYTES: Final = 4 * 1024
"""A peer says nothing on this stream, but that this member was removed."""

LOOK_SECONDS: Final = 1.0
"""How often a stream looks whether its peer was removed."""


class DriverMutex:
    """The driver's mutex. Not re-entrant, as any other."""

    def __init__(self, streams: PeerStreams) -> None:
        self._lock = threading.Lock()
        self._streams = streams

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        self._streams.flush()


class PeerStreams:
    """All streams of one member to its peers, and where these listen."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.mutex = DriverMutex(self)
        self._addresses: Mapping[MemberId, StreamAddress] = {}
        """Replaced as a whole, so it may be read without a lock."""
        self._streams: tuple[PeerStream, ...] = ()
        """As `_addresses`."""
        self._snapshots: dict[MemberId, SnapshotStream] = {}
        self._changing = threading.Lock()

    def set_addresses(self, addresses: Mapping[MemberId, StreamAddress]) -> None:
        """Of all members that are known; again whenever one of them was opened anew."""
        with self._changing:
            self._addresses = {**self._addresses, **addresses}

    def address(self, member: MemberId) -> StreamAddress | None:
        return self._addresses.get(member)

    def snapshot_channel(self, member: MemberId) -> SnapshotStream:
        """The way to bring that member a snapshot; it asks for the address anew for each connection."""
        with self._changing:
            return self._snapshots.setdefault(member, SnapshotStream(self, member))

    def start(self, peers: Peers, peer: Peer) -> PeerStream:
        """For `Peers`: what brings a peer its messages."""
        stream = PeerStream(self, peers, peer)
        with self._changing:
            self._streams = (*self._streams, stream)
        return stream

    def close(self) -> None:
        """The peers are closed already; this is about what brought them snapshots."""
        for snapshots in self._snapshots.values():
            snapshots.close()

    def flush(self) -> None:
        """Write what waits for whichever peer. Never waits, whatever the peers do."""
        for stream in self._streams:
            if stream.peer.has_messages:
                stream.flush()

    def forget(self, stream: PeerStream) -> None:
        with self._changing:
            self._streams = tuple(other for other in self._streams if other is not stream)


class SnapshotStream:
    """Brings a peer a snapshot, on connections of its own: messages do not wait behind its pieces."""

    def __init__(self, streams: PeerStreams, member: MemberId) -> None:
        self._calls = MemberCalls(streams.credentials, member, "member", lambda: streams.address(member))

    def close(self) -> None:
        self._calls.close()

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        try:
            return self._calls.call(Kind.SNAPSHOT_CHUNK, chunk, SNAPSHOT_CHUNK_TIMEOUT_SECONDS)
        except UnreachableError as error:
            raise PeerUnreachableError(str(error)) from error


class PeerStream:
    """The stream to one peer. A thread of its own dials and watches it; any thread writes."""

    def __init__(self, streams: PeerStreams, peers: Peers, peer: Peer) -> None:
        self.peer = peer
        self._streams = streams
        self._peers = peers
        self._sending = threading.Lock()
        self._line: Line | None = None
        """Set by the thread, under `_sending`, while there is a connection."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream-{peer.member:x}", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """The peer is closed. Never called on this thread."""
        self._ended.set()
        line = self._line
        if line is not None:
            line.cut()
        self._thread.join(timeout)

    def flush(self) -> None:
        """Write what the outbox holds, unless another thread is at it."""
        while self.peer.has_messages and self._sending.acquire(blocking=False):
            try:
                line = self._line
                if line is None or line.is_backed_up:
                    return
                self._send(line)
            finally:
                self._sending.release()

    def _send(self, line: Line) -> None:
        messages = self.peer.take_now()
        envelope = self._peers.envelope(self.peer, messages)
        if len(envelope) <= STREAM_REQUEST_BYTES_MAX:
            line.send(Kind.MESSAGES, 0, envelope)
            return
        for message in messages:
            line.send(Kind.MESSAGES, 0, self._peers.envelope(self.peer, [message]))

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ended.is_set() and not self.peer.is_over:
                if self._connect_and_attend():
                    self._peers.unreachable(self.peer.member)
                self._ended.wait(RETRY_PAUSE_SECONDS)
        except BaseException as error:
            self._peers.on_failure(error)
            raise
        finally:
            self._streams.forget(self)

    def _connect_and_attend(self) -> bool:
        """Until there is no connection. True if that is news: there was one, or somebody wants one."""
        address = self._streams.address(self.peer.member)
        if address is None:
            return False
        try:
            connection = dial(address, self._streams.credentials, self.peer.member, "member")
        except UnreachableError:
            return self.peer.has_messages
        line = Line(connection, on_drained=self.flush)
        with self._sending:
            self._line = line
        try:
            self.flush()
            decoder = FrameDecoder(STREAM_REQUEST_BYTES_MAX)
            connection.settimeout(LOOK_SECONDS)
            while not self._ended.is_set() and not self.peer.is_over:
                try:
                    data = connection.recv(READ_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                for frame in decoder.feed(data):
                    if frame.kind == Kind.MESSAGES:  # that this member was removed
                        self._peers.take_reply(frame.payload)
        except (OSError, FrameError):
            pass  # as if it had ended
        finally:
            with self._sending:
                self._line = None
            line.close()
        return not self._ended.is_set()
