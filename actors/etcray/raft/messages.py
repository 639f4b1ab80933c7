"""What members say to each other: one struct a kind, in the Raft paper's words.

`term` is always the sender's current term, in every kind; a pre-vote asks about the term after it.
There is no separate heartbeat: it is an `AppendRequest` without entries. There is no separate answer
to a snapshot: it is an `AppendResponse`, because what the leader wants to know is the same.

Anything here may arrive late, twice, in another order, or not at all. It may also come from a peer
with a bug: `is_well_formed` refuses what no correct member can have sent, before it is looked at.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from etcray_storage.types import NOBODY, Entry, EntryKind, Index, MemberId, SnapshotMeta, Term

NUMBER_MAX: Final = 2**62
"""Terms and indexes stay below this, so that they fit every integer type on disk and on the wire."""


class _Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    sender: MemberId
    recipient: MemberId
    term: Term


class PreVoteRequest(_Header, frozen=True, array_like=True, gc=False, tag="prevote?"):
    """Would you vote for me in term + 1? Changes nothing at the receiver (thesis 9.6)."""

    last_index: Index
    last_term: Term


class PreVoteResponse(_Header, frozen=True, array_like=True, gc=False, tag="prevote!"):
    granted: bool
    commit: Index
    commit_term: Term
    """The newest entry that the sender knows to be committed: a fact, whoever tells it."""


class VoteRequest(_Header, frozen=True, array_like=True, gc=False, tag="vote?"):
    """Vote for me in this term (5.2). Leaves only after the candidate's own vote is durable."""

    last_index: Index
    last_term: Term
    transfer: bool = False
    """The leader asked for this election by `TimeoutNow`: it is not to be protected (thesis 4.2.3)."""


class VoteResponse(_Header, frozen=True, array_like=True, gc=False, tag="vote!"):
    granted: bool


class AppendRequest(_Header, frozen=True, array_like=True, gc=False, tag="append?"):
    """Entries that follow the one at `previous_index` (5.3). Empty: a heartbeat."""

    previous_index: Index
    previous_term: Term
    commit: Index
    """The leader's commit index; it may be beyond these entries."""
    read_sequence: int
    """The newest read round of this leader when the request was made (thesis 6.4)."""
    entries: tuple[Entry, ...]


class AppendResponse(_Header, frozen=True, array_like=True, gc=False, tag="append!"):
    """Either an acknowledgement (`rejected` is 0) or a rejection of the request's previous entry."""

    match: Index
    """The sender's log is durable, and the same as the leader's, up to here. 0 in a rejection."""
    commit: Index
    """The sender knows that everything up to here is committed. 0 in a rejection."""
    rejected: Index
    """The `previous_index` that does not match."""
    hint_index: Index
    """Of a rejection: the first index that the leader should send again, as far as the sender can
    tell: the first entry of the conflicting term, or the end of a log that is too short."""
    hint_term: Term
    """Of a rejection: the term of the conflicting entry; 0 if the log is too short."""
    read_sequence: int
    """Echoed from the request."""


class InstallSnapshotRequest(_Header, frozen=True, array_like=True, gc=False, tag="snapshot?"):
    """The snapshot with this meta data has arrived and is verified: take it over (section 7).
    How its content travels is the matter of the drivers."""

    meta: SnapshotMeta


class TimeoutNow(_Header, frozen=True, array_like=True, gc=False, tag="now!"):
    """Campaign at once, without a pre-vote (thesis 3.10): the leader hands over, or has been removed.
    A copy that comes too late changes nothing: the term is over, or the log has grown."""

    last_index: Index
    """The end of the leader's log, and of the recipient's as far as the leader knows."""


Message: TypeAlias = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | InstallSnapshotRequest
    | TimeoutNow
)

encode_message = msgspec.msgpack.Encoder().encode
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
decode_message = _message_decoder.decode
encode_messages = msgspec.msgpack.Encoder().encode
_messages_decoder: msgspec.msgpack.Decoder[list[Message]] = msgspec.msgpack.Decoder(list[Message])
decode_messages = _messages_decoder.decode


def is_well_formed(message: Message) -> bool:
    """False for what no correct member sends, however old or misdirected the message is."""
    if not 0 <= message.term < NUMBER_MAX:
        return False
    if message.term == 0 and not isinstance(message, PreVoteRequest | PreVoteResponse):
        return False
    if isinstance(message, AppendRequest):
        return _is_append_well_formed(message)
    if isinstance(message, PreVoteResponse):
        return 0 <= message.commit < NUMBER_MAX and 0 <= message.commit_term <= message.term
    if isinstance(message, AppendResponse):
        return (
            0 <= message.match < NUMBER_MAX
            and 0 <= message.commit < NUMBER_MAX
            and 0 <= message.rejected < NUMBER_MAX
            and 0 <= message.hint_index < NUMBER_MAX
            and 0 <= message.hint_term <= message.term
        )
    if isinstance(message, VoteRequest | PreVoteRequest):
        return 0 <= message.last_index < NUMBER_MAX and 0 <= message.last_term <= message.term
    if isinstance(message, InstallSnapshotRequest):
        meta = message.meta
        known = meta.membership.voters + meta.membership.learners
        return (
            0 < meta.index < NUMBER_MAX
            and 0 < meta.term <= message.term
            and bool(meta.membership.voters)
            and len(set(known)) == len(known)
            and NOBODY not in known
        )
    if isinstance(message, TimeoutNow):
        return 0 <= message.last_index < NUMBER_MAX
    return True


def _is_append_well_formed(message: AppendRequest) -> bool:
    """Entries without gaps, their terms never falling and never above the leader's own. Before a
    second change of membership was proposed, the first one was committed: see membership.py."""
    index, term = message.previous_index, message.previous_term
    if not (0 <= index < NUMBER_MAX and 0 <= term <= message.term and message.commit >= 0):
        return False
    if (index == 0) != (term == 0):
        return False
    change = Index(0)
    for entry in message.entries:
        if entry.index != index + 1 or entry.term < term or entry.term == 0:
            return False
        index, term = entry.index, entry.term
        if entry.kind is EntryKind.MEMBERSHIP:
            if change > message.commit:
                return False
            change = index
    return term <= message.term
