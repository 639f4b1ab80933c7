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


class KeepAliveRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Renewals that a gateway gathered. Only the leader renews, after it has confirmed its leadership."""

    leases: list[int]


class KeepAliveReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    outcome: Outcome
    leader: MemberId
    term: Term
    member: MemberId
    revision: int
    ttls: list[int]
    """Granted TTL in seconds for a renewed lease; 0 for one that does not exist or has ended."""


class WatchPoll(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A gateway asks for all events after a revision; the call waits until there are some.

    One such call per gateway and member is under way at a time; what it brings is fanned out at the
    gateway."""

    after_revision: int
    """Everything up to here has been delivered to this gateway."""
    with_previous: bool
    """Some watcher wants prev_kv."""
    bytes_max: int
    wait_seconds: float
    """Answer empty after this long without an event."""


class WatchEvents(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The reply to a WatchPoll: whole revisions only, in order, no gap after `after_revision`."""

    outcome: Outcome
    """NOT_LEADER stands for a member that cannot serve now (lagging behind `after_revision`, closing)."""
    member: MemberId
    term: Term
    revision: int
    """Everything up to here is in this reply or was before it: the gateway's new position."""
    compact_revision: int
    missed: bool
    """`after_revision` is older than what this member keeps in memory: watchers that are not at
    `revision` yet must be resynchronised from history. There are no events then."""
    revisions: list[int]
    """Main revision of each event; ascending."""
    keys: list[bytes]
    events: list[bytes]
    """Serialized mvccpb.Event without prev_kv."""
    previous: list[bytes]
    """Serialized mvccpb.KeyValue before the event, empty if there was none; an empty list unless the
    poll asked for them."""


class HistoryRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Events of the past, for watchers that start there or fell behind; answered by any member."""

    key: bytes
    range_end: bytes
    """As in a RangeRequest: empty for a single key, \\0 for everything from key on."""
    from_revision: int
    to_revision: int
    """Inclusive. The member answers NOT_LEADER if it has not applied that far."""
    with_previous: bool
    revisions_max: int
    bytes_max: int


class HistoryReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whole revisions, in order; ends early at a limit."""

    outcome: Outcome
    member: MemberId
    term: Term
    compact_revision: int
    """If it is above `from_revision`, the past is gone and there are no events."""
    through_revision: int
    """The events up to here are complete; ask again from the next one on."""
    revisions: list[int]
    keys: list[bytes]
    events: list[bytes]
    previous: list[bytes]


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
decode_keep_alive_request = msgspec.msgpack.Decoder(KeepAliveRequest).decode
decode_keep_alive_reply = msgspec.msgpack.Decoder(KeepAliveReply).decode
decode_watch_poll = msgspec.msgpack.Decoder(WatchPoll).decode
decode_watch_events = msgspec.msgpack.Decoder(WatchEvents).decode
decode_history_request = msgspec.msgpack.Decoder(HistoryRequest).decode
decode_history_reply = msgspec.msgpack.Decoder(HistoryReply).decode
decode_status = msgspec.msgpack.Decoder(MemberStatus).decode
