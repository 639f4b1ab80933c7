"""The calls that a member answers, as plain messages: what crosses the Ray boundary.

Each call takes one bytes object and returns one, because Ray pickles every argument on its own and
one bytes object is the cheapest of all. The structs below are what those bytes hold.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from etcray_storage.commands import BatchAnswer
from etcray_storage.types import Index, MemberId, Membership, Term


class Outcome(IntEnum):
    """What became of a call as a whole. The answer to a single request may still be an error."""

    ANSWERED = 0
    NOT_LEADER = 1
    """Nothing was done, or the member lost its leadership while the call waited: whether a batch is
    applied later is then unknown. Send the same batch, with the same sequence, to the new leader."""
    BUSY = 2
    """Nothing was done: a limit of the leader is reached. Try again after a pause."""


class ProposeReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The reply to `propose(encoded Batch)`, given once all its commands are applied."""

    outcome: Outcome
    leader: MemberId
    """Whom this member believes to lead; 0 if it knows nobody."""
    term: Term
    member: MemberId
    """Who answered: for the response header."""
    answer: BatchAnswer | None


class ReadRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Reads that are answered together, at one point of the log."""

    linearizable: bool
    """True: the leader confirms its leadership first (ReadIndex). False: any member answers from
    what it has applied so far."""
    kinds: bytes
    """One `commands.ReadKind` a request."""
    requests: list[bytes]


class ReadReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The reply to `read(encoded ReadRequest)`; the three lists are as in `BatchAnswer`."""

    outcome: Outcome
    leader: MemberId
    term: Term
    member: MemberId
    revisions: list[int]
    errors: list[int]
    bodies: list[bytes]


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a member's state for people, for Maintenance.Status and for finding the leader."""

    member: MemberId
    name: str
    role: str
    """leader, candidate, pre-candidate or follower"""
    term: Term
    leader: MemberId
    last_index: Index
    commit_index: Index
    applied_index: Index
    revision: int
    compact_revision: int
    membership: Membership
    incarnation: int
    process_id: int
    ray_node: str
    data_directory: str
    size_bytes: int
    """What the member's tables take on disk."""
    size_in_use_bytes: int
    """The same without what compaction can give back."""
    ready: bool
    """False until the member has applied everything it knew to be committed when it started."""


encode = msgspec.msgpack.Encoder().encode
decode_propose_reply = msgspec.msgpack.Decoder(ProposeReply).decode
decode_read_request = msgspec.msgpack.Decoder(ReadRequest).decode
decode_read_reply = msgspec.msgpack.Decoder(ReadReply).decode
decode_status = msgspec.msgpack.Decoder(MemberStatus).decode
