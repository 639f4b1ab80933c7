"""What travels from a gateway into the log, and the answer that comes back.

A gateway gathers client requests into a `Batch`; the leader puts the batches that arrived since its
last proposal into one log entry's `Payload`, without decoding them. So the costs of consensus are
paid once for many requests, and a request is decoded once by each member, when it is applied.

Exactly once: a batch is named by (session, sequence). The state machine remembers the answers of a
session's batches until the gateway says, in `Batch.acknowledged`, that it has received them. A batch
that arrives again gets the remembered answer and changes nothing. A session must be opened (sequence
0, no commands) before it is used; a batch of an unknown session is refused as a whole, because nobody
can tell any more whether it was applied before.

Everything here is decoded from bytes that came over the network: a malformed one raises
`msgspec.DecodeError`, which a gateway or a leader answers as an error *before* it enters the log.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from etcray_storage.types import MemberId


class CommandKind(IntEnum):
    """Which request message a command's bytes hold."""

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    ALARM = 5
    LEASE_GRANT = 6
    LEASE_REVOKE = 7
    LEASE_EXPIRE = 8
    """A `LeaseExpiry`: decided by the leader, never sent by a client."""
    LEASE_CHECKPOINT = 9
    """A `LeaseCheckpoint`: decided by the leader, never sent by a client."""
    MEMBER_ADD = 10
    """A `MemberAdd`. This and the next three change the membership, see `RECONFIGURATIONS`."""
    MEMBER_PROMOTE = 11
    """A `MemberPromote`."""
    MEMBER_REMOVE = 12
    """A `MemberRemove`."""
    MEMBER_UPDATE = 13
    """A `MemberUpdate`."""
    MEMBER_PUBLISH = 14
    """A `MemberPublish`: a member has started. An ordinary command."""
    SPACE = 15
    """A `SpaceReport`: decided by the leader, never sent by a client."""


RECONFIGURATIONS: Final = frozenset(
    (
        CommandKind.MEMBER_ADD,
        CommandKind.MEMBER_PROMOTE,
        CommandKind.MEMBER_REMOVE,
        CommandKind.MEMBER_UPDATE,
    )
)
"""Each is alone in its batch, and the batch in an entry of kind `EntryKind.MEMBERSHIP`: so consensus
knows which entries to wait for before the next one. Anywhere else it is refused as malformed."""


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands of one gateway, applied one after the other in this order, each atomic on its own."""

    session: int
    """Chosen at random by the gateway when it starts; 64 bits."""
    sequence: int
    """0 opens the session; then 1, 2, 3 ... in the order in which the gateway made the batches.
    They may arrive, and be applied, in another order."""
    acknowledged: int
    """Every batch up to this sequence is answered: its answer may be forgotten."""
    kinds: bytes
    """One `CommandKind` a command."""
    requests: list[bytes]
    """etcd's own request messages, one a command, validated by the gateway."""


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The data of one log entry."""

    time_ms: int
    """The leader's wall clock in milliseconds since 1970, made monotonic at append."""
    batches: list[bytes]
    """Encoded `Batch`es."""


class BatchAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answers to one batch: three lists of the same length as its commands."""

    session: int
    sequence: int
    revisions: list[int]
    """The store's revision after each command: what the response header says."""
    errors: list[int]
    """0, or the number of an `errors.EtcdError`."""
    bodies: list[bytes]
    """The response message without its header; empty where there is an error. A header is put
    in front by whoever answers the client, because it names the member and the term."""


class ReadKind(IntEnum):
    """Which request message a read's bytes hold."""

    RANGE = 1
    TXN = 2
    """A transaction with nothing but ranges in it."""
    MEMBER_LIST = 3
    ALARMS = 4
    LEASE_TIME_TO_LIVE = 5
    """The answer's TTL is what the state machine knows (granted or checkpointed); the leader puts its
    own clock's remaining seconds in its place."""
    LEASE_LEASES = 6


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to one command or one read, before it is put into a column."""

    revision: int
    error: int
    body: bytes


class LeaseExpiry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Leases that ended, by the leader's clock. Each is revoked as if by LeaseRevoke, in this order;
    one that is gone already is passed over, and so is one that was granted after `seen_index`."""

    leases: list[int]
    seen_index: int
    """The leader's view of the leases reaches up to this entry of the log."""


class LeaseCheckpoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What leases have left, so that the next leader neither cuts them short nor starts over."""

    leases: list[int]
    remaining_ms: list[int]
    seen_index: int
    """As in a LeaseExpiry."""


class MemberAdd(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A new member. It has no name until it has started and published itself."""

    id: MemberId
    """Chosen by whoever proposes it, who must never choose the same twice: a removed id stays refused."""
    name: str
    """Usually empty; whoever starts the member at once may give it here."""
    peer_urls: tuple[str, ...]
    is_learner: bool


class MemberPromote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A learner becomes a voter. That it has caught up is for the leader to know, before it proposes this."""

    id: MemberId


class MemberRemove(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member leaves, for ever."""

    id: MemberId


class MemberUpdate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member is reached at other peer URLs."""

    id: MemberId
    peer_urls: tuple[str, ...]


class MemberPublish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member has started under this name; its clients are to use these URLs."""

    id: MemberId
    name: str
    client_urls: tuple[str, ...]


class SpaceReport(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member's disk has little room (raise NOSPACE for it), or enough again (take that back)."""

    member: MemberId
    low: bool


INTERNAL_SESSION = 0
"""The session of batches that the leader proposes itself. They are not remembered: what they do is
harmless if it is done twice."""

encode_batch = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
encode_payload = msgspec.msgpack.Encoder().encode
decode_payload = msgspec.msgpack.Decoder(Payload).decode
encode_lease_command = msgspec.msgpack.Encoder().encode
decode_lease_expiry = msgspec.msgpack.Decoder(LeaseExpiry).decode
decode_lease_checkpoint = msgspec.msgpack.Decoder(LeaseCheckpoint).decode
encode_member_command = msgspec.msgpack.Encoder().encode
decode_member_add = msgspec.msgpack.Decoder(MemberAdd).decode
decode_member_promote = msgspec.msgpack.Decoder(MemberPromote).decode
decode_member_remove = msgspec.msgpack.Decoder(MemberRemove).decode
decode_member_update = msgspec.msgpack.Decoder(MemberUpdate).decode
decode_member_publish = msgspec.msgpack.Decoder(MemberPublish).decode
decode_space_report = msgspec.msgpack.Decoder(SpaceReport).decode


def is_reconfiguration(batch: Batch) -> bool:
    """Whether any command of this batch changes the membership; then it has to be the only one."""
    return not RECONFIGURATIONS.isdisjoint(batch.kinds)
