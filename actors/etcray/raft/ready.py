"""What the core wants done. Each field says when it may be acted on.

Readies are handed out in order and may overlap: the next one may be taken while the records of
earlier ones are still on their way to the disk. Records become durable in the order of the readies.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from etcray.raft.messages import Message
from etcray.raft.progress import ProgressState
from etcray.raft.read_index import ReadState
from etcray_storage.types import Entry, HardState, Index, MemberId, Membership, SnapshotMeta, Term


class Role(StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """To be made durable as one: all of it or nothing."""

    hard_state: HardState | None
    """None: as in the record before."""
    entries: tuple[Entry, ...]
    """Without gaps. The first may replace an entry that is already in the log: it and everything
    after it is then gone. If there are any, report `stable_to(last.index, last.term)` once durable."""


class SoftState(msgspec.Struct, frozen=True, kw_only=True):
    """What is lost in a crash, and matters to who waits for an answer."""

    role: Role
    leader: MemberId
    term: Term


class SnapshotWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Send the newest snapshot to `member`, then an `InstallSnapshotRequest` with this very `term`
    (even if the member that sends it is no longer the leader by then: the receiver sorts it out),
    and report `snapshot_sent`."""

    member: MemberId
    term: Term


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    snapshot: SnapshotMeta | None
    """Before anything else: when all earlier records are durable, replace the log and the state by
    this snapshot, which has arrived and is verified, in one atomic step; then call
    `snapshot_installed`. The record then has a hard state, of before the snapshot, and no entries: it
    may be written with the snapshot or before it, never after."""
    record: Record | None
    messages: tuple[Message, ...]
    """May leave at once."""
    messages_after_sync: tuple[Message, ...]
    """May leave once this ready's record, if any, and those of all earlier readies are durable."""
    committed: tuple[Entry, ...]
    """Apply in this order, after those of earlier readies. They are committed and durable here. One
    bounded piece: there is another ready at once if there are more, so apply before asking for it.
    Report each entry of kind MEMBERSHIP by `membership_applied` when it is applied."""
    read_states: tuple[ReadState, ...]
    """Confirmed: answer each once its index is applied. Valid even if leadership is lost by now."""
    reads_lost: tuple[int, ...]
    """Tokens of reads that will never be confirmed."""
    snapshots_wanted: tuple[SnapshotWanted, ...]
    soft_state: SoftState | None
    """None: as in the ready before. After a change of term or role, a proposal that waits may or may
    not be committed by somebody else."""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    member: MemberId
    is_learner: bool
    state: ProgressState
    match_index: Index
    next_index: Index
    heard_at: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A copy: it does not change when the core does."""

    member: MemberId
    role: Role
    term: Term
    vote: MemberId
    leader: MemberId
    commit: Index
    applied: Index
    """Handed out for apply up to here."""
    first_index: Index
    last_index: Index
    stable_index: Index
    membership: Membership
    """What this member goes by: that of the last MEMBERSHIP entry reported as applied, or snapshot."""
    transfer_target: MemberId
    """To whom this leader is handing over; NOBODY if it is not, or has given up."""
    peers: tuple[PeerStatus, ...]
    """Empty unless this member leads; sorted by member."""
