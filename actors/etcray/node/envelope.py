"""What members send each other: Raft messages in an envelope that says from whom to whom.

The envelope fences. A message counts only if it was meant for this cluster, this member, and did not
come from an incarnation of the sender that a later one has replaced, nor from a member that was removed.
So a process that was thought dead, whose data directory has been opened again elsewhere, or in whose
place another member was put, is not heard any more; and a removed one is told so, in case it missed the
entry of its removal.

The envelope also says how its sender is: up to where it has applied, the state hash there, and whether
its disk has room. Heartbeats go in envelopes, so the leader hears this of everybody all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from etcray.raft.messages import Message
from etcray_storage.types import ClusterId, Incarnation, Index, MemberId, SnapshotMeta

NO_HASH: Final = 0
"""A state hash that is not known: never compared."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages of one call, and of its return value."""

    cluster: ClusterId
    sender: MemberId
    sender_incarnation: Incarnation
    recipient: MemberId
    messages: list[Message]
    applied: Index = Index(0)
    """The sender has applied everything up to here,"""
    state_hash: int = NO_HASH
    """and this is its state hash after that."""
    low_on_space: bool = False
    removed: bool = False
    """In a return value: the caller was removed from the cluster, for ever."""


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One piece of a snapshot on its way to a lagging member."""

    cluster: ClusterId
    sender: MemberId
    sender_incarnation: Incarnation
    recipient: MemberId
    meta: SnapshotMeta
    sha256: str
    """Of the whole file: names the snapshot, and is checked once the last piece is there."""
    size_bytes: int
    """Of the whole file."""
    offset: int
    data: bytes


class SnapshotChunkReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the recipient wants the sender to go on; `size_bytes` once it has verified everything."""

    next_offset: int


encode = msgspec.msgpack.Encoder().encode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_snapshot_chunk = msgspec.msgpack.Decoder(SnapshotChunk).decode
decode_snapshot_chunk_reply = msgspec.msgpack.Decoder(SnapshotChunkReply).decode


class Wellbeing(NamedTuple):
    """What a member says about itself in every envelope."""

    applied: Index
    state_hash: int
    low_on_space: bool


class Fence:
    """Decides whom this member still listens to.

    Invariants: for each peer, the highest incarnation ever heard only grows. It is kept in memory: a
    restarted member learns it again from the first message, and a stale peer that speaks first is
    harmless, because what it says was durable in the directory that its successor opened. Who was removed
    is part of the replicated state, and never forgotten.
    """

    def __init__(
        self,
        cluster: ClusterId,
        member: MemberId,
        incarnation: Incarnation,
        is_removed: Callable[[MemberId], bool],
        wellbeing: Callable[[], Wellbeing],
    ) -> None:
        self.cluster = cluster
        self.member = member
        self.incarnation = incarnation
        self.is_removed = is_removed
        self._wellbeing = wellbeing
        self._heard: dict[MemberId, Incarnation] = {}
        """Grows with the members that ever were; ids that never were are not entered, because only the
        members' own processes know this cluster's id."""

    def admits(self, letter: Envelope | SnapshotChunk) -> bool:
        """True if the letter is for this member and its sender is not fenced off."""
        if letter.cluster != self.cluster or letter.recipient != self.member:
            return False
        heard = self._heard.get(letter.sender, Incarnation(0))
        if letter.sender_incarnation < heard or self.is_removed(letter.sender):
            return False
        self._heard[letter.sender] = letter.sender_incarnation
        return True

    def envelope(self, recipient: MemberId, messages: list[Message], *, removed: bool = False) -> bytes:
        """An encoded envelope of this member."""
        return encode(
            Envelope(
                self.cluster,
                self.member,
                self.incarnation,
                recipient,
                messages,
                *self._wellbeing(),
                removed,
            )
        )
