"""The way to the other members: outboxes, sender threads, and replies that ride on return values.

A Ray call costs about 0.7 ms of CPU on each side, whatever it carries. So there is at most one call
to a peer on its way at any time; messages that arise meanwhile gather in the peer's outbox and leave
together with the next call. And an answer to a peer's message does not need a call of its own: while
the peer's call waits in `exchange`, messages to that peer go into its return value.

    leader                                      follower
    outbox -> sender thread -- exchange(bytes) --> step, write, sync
                            <-- return value ----- AppendResponse (released by the sync)

Raft tolerates loss, duplicates and reordering, so nothing here retries: a failed call is reported to
the driver, and consensus decides what to send again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from etcray.node.envelope import Envelope, Fence, decode_envelope, encode
from etcray.raft.messages import Message
from etcray_storage.limits import OUTBOX_MESSAGES_MAX
from etcray_storage.types import MemberId

RETRY_PAUSE_SECONDS: Final = 0.05
"""After a failed call, before the next one to the same peer."""


class PeerUnreachableError(Exception):
    """A call to a peer failed or was not answered in time. It may have been executed."""


class PeerChannel(Protocol):
    """A way to call one peer. Blocking; used by one sender thread and one snapshot thread."""

    def exchange(self, envelope: bytes) -> bytes:
        """Deliver an encoded Envelope and return the peer's. Raises PeerUnreachableError."""
        ...

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        """Deliver an encoded SnapshotChunk and return the SnapshotChunkReply."""
        ...


class ReplySlot:
    """Collects what is to be returned to a peer whose call is waiting.

    Filled by whichever thread releases messages for that peer; `done` is released once as many
    messages are there as the call brought, because each request has one answer.
    """

    __slots__ = ("done", "expected", "messages")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.messages: list[Message] = []
        self.done = threading.Lock()
        self.done.acquire()


class Peer:
    """One other member: its outbox, the calls of it that wait here, and the thread that calls it."""

    def __init__(self, member: MemberId, peers: Peers) -> None:
        self.member = member
        self._peers = peers
        self._outbox: deque[Message] = deque(maxlen=OUTBOX_MESSAGES_MAX)
        self._slots: deque[ReplySlot] = deque()
        self._wakeup = threading.Condition(threading.Lock())
        self._channel: PeerChannel | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"sender-{member:x}", daemon=True)
        self._thread.start()

    @property
    def channel(self) -> PeerChannel | None:
        return self._channel

    def connect(self, channel: PeerChannel) -> None:
        with self._wakeup:
            self._channel = channel
            self._wakeup.notify()

    def send(self, message: Message) -> None:
        """Into the return value of a waiting call if there is one, else into the outbox. A full
        outbox drops its oldest message: the peer has been silent for long, and Raft sends anew."""
        with self._wakeup:
            if self._slots:
                slot = self._slots[0]
                slot.messages.append(message)
                if len(slot.messages) >= slot.expected:
                    self._slots.popleft()
                    slot.done.release()
                return
            self._outbox.append(message)
            self._wakeup.notify()

    def open_slot(self, expected: int) -> ReplySlot:
        slot = ReplySlot(expected)
        with self._wakeup:
            self._slots.append(slot)
        return slot

    def close_slot(self, slot: ReplySlot) -> list[Message]:
        """Stop collecting; what the slot holds now is what the caller must deliver."""
        with self._wakeup:
            if slot in self._slots:
                self._slots.remove(slot)
            return slot.messages

    def close(self) -> None:
        with self._wakeup:
            self._closed = True
            self._wakeup.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                channel, messages = taken
                self._peers.deliver(self, channel, messages)
        except BaseException as e:
            self._peers.on_failure(e)
            raise

    def _take(self) -> tuple[PeerChannel, list[Message]] | None:
        with self._wakeup:
            while not self._closed and (not self._outbox or self._channel is None):
                self._wakeup.wait()
            if self._closed:
                return None
            assert self._channel is not None
            messages = list(self._outbox)
            self._outbox.clear()
            return self._channel, messages

    def pause(self) -> None:
        """Wait a little after a failure; returns early when the peer is connected anew or closed."""
        with self._wakeup:
            if not self._closed:
                self._wakeup.wait(RETRY_PAUSE_SECONDS)


class Peers:
    """All other members of the cluster."""

    def __init__(
        self,
        fence: Fence,
        members: list[MemberId],
        on_messages: Callable[[list[Message]], object],
        on_unreachable: Callable[[MemberId], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._fence = fence
        self._on_messages = on_messages
        self._on_unreachable = on_unreachable
        self.on_failure = on_failure
        self._peers = {member: Peer(member, self) for member in members}

    def connect(self, member: MemberId, channel: PeerChannel) -> None:
        self._peers[member].connect(channel)

    def channel(self, member: MemberId) -> PeerChannel | None:
        return self._peers[member].channel

    def send(self, message: Message) -> None:
        peer = self._peers.get(message.recipient)
        if peer is not None:
            peer.send(message)

    def open_slot(self, envelope: Envelope) -> ReplySlot | None:
        peer = self._peers.get(envelope.sender)
        return peer.open_slot(len(envelope.messages)) if peer is not None else None

    def close_slot(self, sender: MemberId, slot: ReplySlot) -> bytes:
        messages = self._peers[sender].close_slot(slot)
        return encode(self._fence.envelope(sender, messages))

    def deliver(self, peer: Peer, channel: PeerChannel, messages: list[Message]) -> None:
        """One call to a peer, on its sender thread."""
        try:
            reply = channel.exchange(encode(self._fence.envelope(peer.member, messages)))
        except PeerUnreachableError:
            self._on_unreachable(peer.member)
            peer.pause()
            return
        answer = decode_envelope(reply)
        if answer.messages and self._fence.admits(answer):
            self._on_messages(answer.messages)

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()
        for peer in self._peers.values():
            peer.join(timeout=1.0)
