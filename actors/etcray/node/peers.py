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

Peers come and go with the cluster's members. One begins to exist when its channel is made known or when
it calls, whichever is first; so a member that joins can answer a leader of which it has never heard. One
ends when its removal is applied, after what was queued for it has left: the last message tells it that
the removal is committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from etcray.node.envelope import Envelope, Fence, decode_envelope
from etcray.raft.messages import Message
from etcray_storage.limits import OUTBOX_MESSAGES_MAX, PEERS_MAX
from etcray_storage.types import MemberId

SNAPSHOT_CHUNK_TIMEOUT_SECONDS: Final = 30.0
"""The last chunk's call returns after the whole snapshot is verified."""

RETRY_PAUSE_SECONDS: Final = 0.05
"""After a failed call, before the next one to the same peer."""


class PeerUnreachableError(Exception):
    """A call to a peer failed or was not answered in time. It may have been executed."""


class SnapshotChannel(Protocol):
    """A way to bring a peer a snapshot. Blocking; used by one snapshot thread."""

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        """Deliver an encoded SnapshotChunk and return the SnapshotChunkReply. Raises
        PeerUnreachableError."""
        ...


class PeerChannel(SnapshotChannel, Protocol):
    """A way to call one peer. Blocking; `exchange` is used by one sender thread."""

    def exchange(self, envelope: bytes) -> bytes:
        """Deliver an encoded Envelope and return the peer's. Raises PeerUnreachableError."""
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
    """One other member: its outbox, and the calls of it that wait here. Thread-safe, and no thread."""

    def __init__(self, member: MemberId) -> None:
        self.member = member
        self._outbox: deque[Message] = deque(maxlen=OUTBOX_MESSAGES_MAX)
        self._slots: deque[ReplySlot] = deque()
        self._wakeup = threading.Condition(threading.Lock())
        self._channel: SnapshotChannel | None = None
        self._closed = False
        self._retired = False
        """Nothing is taken in any more; it closes once its outbox is empty, or a call fails."""

    @property
    def channel(self) -> SnapshotChannel | None:
        return self._channel

    def connect(self, channel: SnapshotChannel) -> None:
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

    def take_now(self) -> list[Message]:
        """Empty the outbox, for one call; for whoever calls the peer without a thread of its own."""
        with self._wakeup:
            messages = list(self._outbox)
            self._outbox.clear()
            return messages

    @property
    def has_messages(self) -> bool:
        """Whether `take_now` would give something. Without a lock: it may have changed since."""
        return bool(self._outbox)

    @property
    def is_over(self) -> bool:
        """It is closed; or its member was removed, and what was queued for it has left."""
        return self._closed or (self._retired and not self._outbox)

    def take(self) -> tuple[SnapshotChannel, list[Message]] | None:
        """Wait until there is something to send and a way to send it. None: the peer is closed."""
        with self._wakeup:
            while not self._closed and (not self._outbox or self._channel is None):
                if self._retired:
                    return None
                self._wakeup.wait()
            if self._closed:
                return None
            assert self._channel is not None
            messages = list(self._outbox)
            self._outbox.clear()
            return self._channel, messages

    def call_failed(self) -> None:
        """Wait a little; returns early when the peer is connected anew or closed."""
        with self._wakeup:
            if self._retired:
                self._closed = True
            elif not self._closed:
                self._wakeup.wait(RETRY_PAUSE_SECONDS)

    def retire(self) -> None:
        with self._wakeup:
            self._retired = True
            self._wakeup.notify()

    def close(self) -> None:
        with self._wakeup:
            self._closed = True
            self._wakeup.notify()


class Sender(Protocol):
    """What calls one peer whenever there is something in its outbox. It ends when the peer is closed."""

    def join(self, timeout: float) -> None: ...


StartSender = Callable[["Peers", Peer], Sender]


class SenderThread:
    """The usual sender: a thread that makes one blocking call at a time."""

    def __init__(self, peers: Peers, peer: Peer) -> None:
        self._peers = peers
        self._peer = peer
        self._thread = threading.Thread(target=self._run, name=f"sender-{peer.member:x}", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (taken := self._peer.take()) is not None:
                channel, messages = taken
                # Where such threads send, whole channels are made known.
                self._peers.deliver(self._peer, cast(PeerChannel, channel), messages)
        except BaseException as e:
            self._peers.on_failure(e)
            raise


class Peers:
    """All other members of the cluster that this one knows of."""

    def __init__(
        self,
        fence: Fence,
        on_reply: Callable[[Envelope], None],
        on_unreachable: Callable[[MemberId], None],
        on_failure: Callable[[BaseException], None],
        start_sender: StartSender = SenderThread,
    ) -> None:
        self._fence = fence
        self._on_reply = on_reply
        self._on_unreachable = on_unreachable
        self.on_failure = on_failure
        self._start_sender = start_sender
        self._changing = threading.Lock()
        self._peers: dict[MemberId, Peer] = {}
        """Replaced as a whole under `_changing`, so that it may be read without."""
        self._senders: dict[MemberId, Sender] = {}
        self._closed = False

    def connect(self, member: MemberId, channel: SnapshotChannel) -> None:
        """Make known how to call a member; again whenever its process was created anew. One that was
        removed is not called any more."""
        peer = self._get_or_add(member)
        if peer is not None:
            peer.connect(channel)

    def channel(self, member: MemberId) -> SnapshotChannel | None:
        peer = self._peers.get(member)
        return peer.channel if peer is not None else None

    def peer(self, member: MemberId) -> Peer | None:
        return self._peers.get(member)

    def send(self, message: Message) -> None:
        """Dropped if nobody knows the recipient: consensus sends again until the supervisor has
        introduced it."""
        peer = self._peers.get(message.recipient)
        if peer is not None:
            peer.send(message)

    def open_slot(self, envelope: Envelope) -> tuple[Peer, ReplySlot] | None:
        peer = self._peers.get(envelope.sender) or self._get_or_add(envelope.sender)
        return (peer, peer.open_slot(len(envelope.messages))) if peer is not None else None

    def close_slot(self, peer: Peer, slot: ReplySlot) -> bytes:
        return self._fence.envelope(peer.member, peer.close_slot(slot))

    def deliver(self, peer: Peer, channel: PeerChannel, messages: list[Message]) -> None:
        """One call to a peer, on its sender's thread."""
        try:
            reply = channel.exchange(self._fence.envelope(peer.member, messages))
        except PeerUnreachableError:
            self._on_unreachable(peer.member)
            peer.call_failed()
            return
        self.take_reply(reply)

    def envelope(self, peer: Peer, messages: list[Message]) -> bytes:
        """An encoded envelope to that peer, for whoever brings it there without a call."""
        return self._fence.envelope(peer.member, messages)

    def unreachable(self, member: MemberId) -> None:
        """The way to it broke, or could not be made."""
        self._on_unreachable(member)

    def take_reply(self, reply: bytes) -> None:
        """What a call to a peer returned."""
        answer = decode_envelope(reply)
        if self._fence.admits(answer):
            self._on_reply(answer)

    def remove(self, member: MemberId) -> None:
        """The member was removed from the cluster: let what is queued leave, then end."""
        with self._changing:
            peer = self._peers.get(member)
            if peer is not None:
                self._peers = {other: kept for other, kept in self._peers.items() if other != member}
                del self._senders[member]
                peer.retire()

    def close(self) -> None:
        with self._changing:
            self._closed = True
            peers, senders = self._peers, self._senders
        for peer in peers.values():
            peer.close()
        for sender in senders.values():
            sender.join(timeout=1.0)

    def _get_or_add(self, member: MemberId) -> Peer | None:
        with self._changing:
            peer = self._peers.get(member)
            if peer is not None:
                return peer
            if (
                self._closed
                or member == self._fence.member
                or self._fence.is_removed(member)
                or len(self._peers) >= PEERS_MAX
            ):
                return None
            peer = Peer(member)
            self._peers = {**self._peers, member: peer}
            self._senders[member] = self._start_sender(self, peer)
            return peer
