"""What members send each other: Raft messages in an envelope that says from whom to whom.

The envelope fences. A message counts only if it was meant for this cluster, this member, and did not
come from an incarnation of the sender that a later one has replaced. So a process that was thought
dead, whose data directory has been opened again elsewhere, is not heard any more.
"""

from __future__ import annotations

import msgspec

from etcray.raft.messages import Message
from etcray_storage.types import ClusterId, Incarnation, MemberId, SnapshotMeta


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages of one call, and of its return value."""

    cluster: ClusterId
    sender: MemberId
    sender_incarnation: Incarnation
    recipient: MemberId
    messages: list[Message]


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


class Fence:
    """Decides whom this member still listens to.

    Invariant: for each peer, the highest incarnation ever heard only grows. It is kept in memory: a
    restarted member learns it again from the first message, and a stale peer that speaks first is
    harmless, because what it says was durable in the directory that its successor opened.
    """

    def __init__(self, cluster: ClusterId, member: MemberId, incarnation: Incarnation) -> None:
        self.cluster = cluster
        self.member = member
        self.incarnation = incarnation
        self._heard: dict[MemberId, Incarnation] = {}

    def admits(self, letter: Envelope | SnapshotChunk) -> bool:
        """True if the letter is for this member and its sender is not fenced off."""
        if letter.cluster != self.cluster or letter.recipient != self.member:
            return False
        heard = self._heard.get(letter.sender, Incarnation(0))
        if letter.sender_incarnation < heard:
            return False
        self._heard[letter.sender] = letter.sender_incarnation
        return True

    def envelope(self, recipient: MemberId, messages: list[Message]) -> Envelope:
        return Envelope(self.cluster, self.member, self.incarnation, recipient, messages)
