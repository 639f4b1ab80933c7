"""A peer's call: its messages go to the core, and what the core answers goes into the return value.

In two halves, because between them the disk has to sync: `begin` hands the messages over, and the reply
that comes of it may be finished when it is complete, or when the caller has waited long enough; what
comes later goes out in a call of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from etcray.node.driver import Driver
from etcray.node.envelope import Envelope, Fence, decode_envelope
from etcray.node.peers import Peer, Peers, ReplySlot
from etcray.raft.messages import Message

REPLY_WAIT_SECONDS: Final = 0.2
"""How long a peer's call waits for the sync that releases its answer."""


class PendingReply:
    """The answer to one call of a peer, while it is being collected."""

    __slots__ = ("_finish", "_slot")

    def __init__(self, slot: ReplySlot | None, finish: Callable[[], bytes]) -> None:
        self._slot = slot
        """None if nothing is waited for."""
        self._finish = finish

    @property
    def is_complete(self) -> bool:
        return self._slot is None or not self._slot.done.locked()

    def wait(self) -> bytes:
        """Block until the answer is complete, or for the longest that a call waits."""
        if self._slot is not None:
            self._slot.done.acquire(timeout=REPLY_WAIT_SECONDS)
        return self._finish()

    def finish(self) -> bytes:
        """What there is now. Once."""
        return self._finish()


class Exchange:
    """Takes the calls of all peers."""

    def __init__(
        self,
        fence: Fence,
        peers: Peers,
        driver: Driver,
        on_heard: Callable[[Envelope], None],
        hold_back: Callable[[list[Message]], AbstractContextManager[list[Message]]],
    ) -> None:
        self._fence = fence
        self._peers = peers
        self._driver = driver
        self._on_heard = on_heard
        self._hold_back = hold_back
        """Leaves out what must not reach the core yet."""

    def take(self, payload: bytes) -> bytes | None:
        """Hand over a peer's messages that came without a call; the answers go out as messages of our
        own. What is returned is to be sent back all the same: that the sender was removed."""
        envelope = decode_envelope(payload)
        if self._fence.admits(envelope):
            self._on_heard(envelope)
            with self._hold_back(envelope.messages) as messages:
                self._driver.step(messages)
        elif self._fence.is_removed(envelope.sender):
            return self._fence.envelope(envelope.sender, [], removed=True)
        return None

    def begin(self, payload: bytes) -> PendingReply:
        """Hand a peer's messages to the core. Raises msgspec.DecodeError for bytes that are none."""
        envelope = decode_envelope(payload)
        fence = self._fence
        opened: tuple[Peer, ReplySlot] | None = None
        if fence.admits(envelope):
            self._on_heard(envelope)
            opened = self._peers.open_slot(envelope)
        if opened is None:
            removed = fence.is_removed(envelope.sender)
            return PendingReply(None, lambda: fence.envelope(envelope.sender, [], removed=removed))
        peer, slot = opened
        with self._hold_back(envelope.messages) as messages:
            waits = self._driver.step(messages)
        return PendingReply(slot if waits else None, lambda: self._peers.close_slot(peer, slot))
