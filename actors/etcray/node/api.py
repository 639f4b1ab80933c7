"""The calls that a member answers, as plain messages: what crosses the Ray boundary.

Each call takes one bytes object and returns one, because Ray pickles every argument on its own and
one bytes object is the cheapest of all. The structs below are what those bytes hold.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from etcray.transport.addresses import StreamAddress
from etcray_storage.commands import BatchAnswer
from etcray_storage.machine.members import Member as ClusterMember
from etcray_storage.types import NOBODY, Index, MemberId, Membership, Term


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


class TransferRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Asks the leader to hand its leadership to another voter."""

    target: MemberId


class TransferReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Given once another member leads, or the attempt is over."""

    outcome: Outcome
    leader: MemberId
    term: Term
    member: MemberId
    error: int
    """0, or the number of an `EtcdError`."""


class HashKVRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Asks one member for the hash of all keys and their history."""

    revision: int
    """Up to this one; 0 is the newest that the member has applied."""


class HashKVReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Any member answers, for itself. NOT_LEADER stands for one that cannot serve now, BUSY for one that
    is computing another one."""

    outcome: Outcome
    member: MemberId
    term: Term
    revision: int
    """The member's newest."""
    compact_revision: int
    hash: int
    """Comparable between members if `hash_revision` and `compact_revision` are equal."""
    hash_revision: int
    error: int
    """0, or the number of an `EtcdError`."""


class DefragmentReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The member has given the space back that compaction left, or cannot do it now: because it is at it
    already, or because its disk has no room to do it (BUSY). Nothing has changed then."""

    outcome: Outcome
    member: MemberId
    term: Term
    revision: int


class PeerView(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a leader knows of another member."""

    member: MemberId
    match_index: Index
    heard_seconds_ago: float
    is_learner: bool


class HistoryRowsRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whoever keeps a copy of all revisions asks for those behind its own; any member answers."""

    after_revision: int
    bytes_max: int
    wait_seconds: float
    """Answer empty after this long without a new revision."""
    base_revision: int = 0
    """Above 0: not all rows, but those that a compaction at this revision leaves of the revisions up to
    it. It is the member's compact revision, as it said before."""


class HistoryRowsReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whole revisions, in order; ends early at the limit."""

    outcome: Outcome
    """NOT_LEADER stands for a member that cannot serve now: it knows no leader, or lags behind."""
    member: MemberId
    term: Term
    leader: MemberId
    """Whom this member believes to lead; 0 if it knows nobody."""
    revision: int
    """What the member has applied: how far the copy is behind."""
    through_revision: int
    """The copy's new position."""
    compact_revision: int
    """-1: never compacted."""
    complete_from: int
    """The member has everything from this revision on. If it is above `after_revision` + 1, then rows in
    between may be missing, and the copy has to begin with the base of the compact revision. If it is
    above a base's revision, that base is not to be had any more."""
    rows: bytes
    """An Arrow record batch without its schema, which is `mvcc.schema.REVISIONS_ARROW`; empty if there
    are no rows."""


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
    """As applied by this member, as are `members`, `removed_ids` and `alarms`."""
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
    members: tuple[ClusterMember, ...] = ()
    removed_ids: tuple[MemberId, ...] = ()
    alarms: tuple[tuple[MemberId, int], ...] = ()
    """Member and etcd's AlarmType."""
    is_learner: bool = False
    removed: bool = False
    """This member was removed from the cluster; it takes no part any more, and is not needed any more
    once another one leads."""
    corrupt: bool = False
    """A CORRUPT alarm names this member: its state is not what the log says."""
    state_hash: int = 0
    """After `applied_index`; 0 if it is not known."""
    transfer_target: MemberId = NOBODY
    """To whom this leader is handing over."""
    peers: tuple[PeerView, ...] = ()
    """Only a leader's."""
    free_bytes: int = 0
    """Of the disk that the member's directory is on."""
    low_on_space: bool = False
    stream: StreamAddress | None = None
    """Where it listens, if members and gateways talk by streams."""


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
decode_transfer_request = msgspec.msgpack.Decoder(TransferRequest).decode
decode_transfer_reply = msgspec.msgpack.Decoder(TransferReply).decode
decode_hash_kv_request = msgspec.msgpack.Decoder(HashKVRequest).decode
decode_hash_kv_reply = msgspec.msgpack.Decoder(HashKVReply).decode
decode_defragment_reply = msgspec.msgpack.Decoder(DefragmentReply).decode
decode_history_rows_request = msgspec.msgpack.Decoder(HistoryRowsRequest).decode
decode_history_rows_reply = msgspec.msgpack.Decoder(HistoryRowsReply).decode
decode_status = msgspec.msgpack.Decoder(MemberStatus).decode
