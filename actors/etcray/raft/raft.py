"""The face of the core: what a driver calls. Decisions are made in election, follower and leader."""

from __future__ import annotations

import random

from etcray.raft import election, follower, leader, membership, transfer
from etcray.raft.config import RaftConfig
from etcray.raft.errors import DropReason, NotLeaderError, ProposalDroppedError
from etcray.raft.log import LogReader
from etcray.raft.messages import (
    AppendRequest,
    AppendResponse,
    InstallSnapshotRequest,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
    is_well_formed,
)
from etcray.raft.ready import PeerStatus, Ready, Record, Role, SoftState, Status
from etcray.raft.state import Leadership, State
from etcray_storage.types import (
    NOBODY,
    Entry,
    EntryKind,
    HardState,
    Index,
    MemberId,
    Membership,
    SnapshotMeta,
    Term,
)


class Raft:
    """One member's consensus. Not thread-safe: the driver holds one lock around every call.

    `state` is for invariants, tests and this package; drivers use the methods.
    """

    def __init__(
        self,
        config: RaftConfig,
        log: LogReader,
        hard_state: HardState,
        membership: Membership,
        applied: Index,
        rng: random.Random,
        now: float,
    ) -> None:
        """`applied` is what the tables hold durably; entries after it are handed out again.
        `membership` is that of the tables too; a member that joins is not in it yet. Give each
        member a generator with a seed of its own, or elections may collide for ever."""
        self.state = State(config, log, hard_state, membership, applied, rng, now)
        self._handed_soft_state = self._soft_state()

    # --- inputs ---------------------------------------------------------------------------

    def step(self, message: Message, now: float) -> None:
        """Take one message of a peer. Never raises for what a peer may send. Requests may come from
        anybody, see membership.py; that the sender is who it says is the driver's matter."""
        state = self.state
        state.advance_clock(now)
        if message.recipient != state.member or message.sender == state.member or not is_well_formed(message):
            return
        if isinstance(message, PreVoteRequest | VoteRequest):
            wanted_by_leader = isinstance(message, VoteRequest) and message.transfer
            if not wanted_by_leader and state.protects_leader():
                return  # Not even its term counts: a leader is alive (section 6).
        elif (
            isinstance(message, AppendResponse | PreVoteResponse | VoteResponse)
            and message.sender not in state.members
        ):
            return  # It may be a removed member: its answers do not count, and its term must not.
        if message.term < state.term:
            self._answer_stale(message)
            return
        if message.term > state.term:
            state.become_follower(message.term, NOBODY)
        self._dispatch(message)

    def _dispatch(self, message: Message) -> None:
        """The message is of the current term."""
        state = self.state
        if isinstance(message, AppendResponse):
            if state.leading is not None:
                leader.handle_append_response(state, state.leading, message)
        elif isinstance(message, AppendRequest):
            if self._accept_leader(message.sender):
                follower.handle_append_request(state, message)
        elif isinstance(message, InstallSnapshotRequest):
            if self._accept_leader(message.sender):
                follower.handle_install_snapshot_request(state, message)
        elif isinstance(message, TimeoutNow):
            election.handle_timeout_now(state, message)
        elif isinstance(message, PreVoteRequest):
            election.handle_pre_vote_request(state, message)
        elif isinstance(message, VoteRequest):
            election.handle_vote_request(state, message)
        elif isinstance(message, PreVoteResponse):
            election.handle_pre_vote_response(state, message)
        else:
            election.handle_vote_response(state, message)

    def _accept_leader(self, sender: MemberId) -> bool:
        """Whoever sends appends leads the term; there is never a second one (5.2). If there seems
        to be, the peer is at fault and is not listened to."""
        state = self.state
        if state.leading is not None or state.leader not in (NOBODY, sender):
            return False
        if state.role is not Role.FOLLOWER:
            state.become_follower(state.term, sender)
        state.heard_leader(sender)
        return True

    def _answer_stale(self, message: Message) -> None:
        """A request of an older term is refused (5.1). The refusal tells the sender the newer term:
        a deposed leader steps down, and a candidate that fell behind can catch up."""
        state = self.state
        if isinstance(message, AppendRequest):
            state.send(
                AppendResponse(
                    sender=state.member,
                    recipient=message.sender,
                    term=state.term,
                    match=Index(0),
                    commit=Index(0),
                    rejected=message.previous_index,
                    hint_index=Index(0),
                    hint_term=Term(0),
                    read_sequence=0,
                )
            )
        elif isinstance(message, PreVoteRequest):
            election.answer_pre_vote(state, message.sender, False)
        elif isinstance(message, VoteRequest):
            state.send(VoteResponse(state.member, message.sender, state.term, False))

    def tick(self, now: float) -> None:
        """Call at `next_deadline()` or later; earlier calls do nothing."""
        state = self.state
        state.advance_clock(now)
        if state.leading is not None:
            leader.tick(state, state.leading)
        else:
            election.tick(state)

    def next_deadline(self) -> float:
        """When to tick next, in the clock of `now`. Ask again after every other call."""
        if self.state.leading is not None:
            return leader.next_deadline(self.state, self.state.leading)
        return self.state.election_deadline

    def propose(self, data: bytes, now: float, kind: EntryKind = EntryKind.COMMANDS) -> Index:
        """Append one entry and return its index. It is committed when a `Ready.committed` brings an
        entry with this index and the term of this leadership; another term there means it is lost.

        Raises NotLeaderError, or ProposalDroppedError, which says what to wait for."""
        leading = self._leading(now)
        if leading.transfer is not None:
            message = f"leadership is on its way to {leading.transfer.target}"
            raise ProposalDroppedError(DropReason.TRANSFER, message)
        if kind is EntryKind.MEMBERSHIP:
            membership.check_proposal(self.state, leading)
        return leader.propose(self.state, leading, data, kind)

    def read_index(self, now: float) -> int:
        """Begin a linearizable read; the token comes back in `Ready.read_states` or `reads_lost`.
        Raises NotLeaderError."""
        return leader.read_index(self.state, self._leading(now))

    def transfer_leadership(self, to: MemberId, now: float) -> None:
        """Begin to hand over to another voter (thesis 3.10). It has worked when the soft state shows
        another leader. It has failed when this member still leads and the status has no transfer
        target any more, after one election timeout. Until then proposals are dropped, reads are not.

        Raises NotLeaderError or TransferRefusedError. To ask again for the same changes nothing."""
        transfer.begin(self.state, self._leading(now), to)

    def _leading(self, now: float) -> Leadership:
        """The leadership that takes new work. Raises NotLeaderError."""
        state = self.state
        state.advance_clock(now)
        if state.leading is None:
            raise NotLeaderError(state.leader)
        if state.leading.removed_at:
            raise NotLeaderError(NOBODY)
        return state.leading

    def leader_suspected(self, member: MemberId, now: float) -> None:
        """A call to `member` failed in a way that suggests it is gone. As a follower of it: stop
        protecting it and campaign after a short random delay. As the leader: probe it."""
        state = self.state
        state.advance_clock(now)
        if state.leading is not None:
            leader.peer_suspected(state, state.leading, member)
        elif state.leader == member:
            election.leader_suspected(state)

    # --- reports --------------------------------------------------------------------------

    def stable_to(self, index: Index, term: Term) -> None:
        """A record that ends with this entry is durable. Once for each record that had entries, in
        their order, even if the entries were replaced since (then it changes nothing)."""
        state = self.state
        if state.log.stable_to(index, term) and state.leading is not None:
            leader.maybe_commit(state, state.leading)

    def membership_applied(self, index: Index, membership_now: Membership, now: float) -> None:
        """The MEMBERSHIP entry `index` of a `Ready.committed` is applied, and this is the membership that
        results; the same as before if the state machine refused the change. Once for each such
        entry, in their order, before the log is compacted to it. Nothing happens if a snapshot that
        covers the entry was installed meanwhile."""
        self.state.advance_clock(now)
        membership.applied(self.state, index, membership_now)

    def snapshot_installed(self, meta: SnapshotMeta, now: float) -> None:
        """`Ready.snapshot` has replaced log and state, durably; `meta.membership` counts from now on.
        If it cannot be installed, the member must stop: it has accepted it."""
        self.state.advance_clock(now)
        follower.snapshot_installed(self.state, meta)

    def snapshot_sent(self, member: MemberId, meta_index: Index, ok: bool, now: float) -> None:
        """How the transfer asked for in `Ready.snapshots_wanted` ended. May come late."""
        state = self.state
        state.advance_clock(now)
        if state.leading is not None:
            leader.snapshot_sent(state, state.leading, member, meta_index, ok)

    def log_compacted_to(self, index: Index) -> None:
        """The durable log drops (or, under the same lock, has just dropped) everything up to
        `index`, which is applied and durable; the log still answers for the term at `index`."""
        assert index <= self.state.applied, f"compaction to {index}, applied {self.state.applied}"
        self.state.log.compact_to(index)

    # --- outputs --------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """True may still come to an empty `ready()`; False never hides anything."""
        state = self.state
        return bool(
            (state.leading is not None and state.leading.flush_due)
            or state.messages
            or state.messages_after_sync
            or state.log.handed_index < state.log.last_index
            or state.applied < self._applicable_index()
            or state.read_states
            or state.reads_lost
            or state.snapshots_wanted
            or state.snapshot_to_hand_out is not None
            or self._is_hard_state_due()
            or self._is_soft_state_new()
        )

    def ready(self) -> Ready:
        """Hand out everything there is to do. It is not handed out again."""
        state = self.state
        if state.leading is not None and state.leading.flush_due:
            leader.flush(state, state.leading)
        entries = state.log.hand_out()
        snapshot = None
        if not entries:
            snapshot, state.snapshot_to_hand_out = state.snapshot_to_hand_out, None
        soft_state = None
        if self._is_soft_state_new():
            soft_state = self._handed_soft_state = self._soft_state()
        ready = Ready(
            snapshot=snapshot,
            record=self._take_record(entries, snapshot is not None),
            messages=tuple(state.messages),
            messages_after_sync=tuple(state.messages_after_sync),
            committed=self._take_committed(),
            read_states=tuple(state.read_states),
            reads_lost=tuple(state.reads_lost),
            snapshots_wanted=tuple(state.snapshots_wanted),
            soft_state=soft_state,
        )
        state.messages.clear()
        state.messages_after_sync.clear()
        state.read_states.clear()
        state.reads_lost.clear()
        state.snapshots_wanted.clear()
        return ready

    def _take_record(self, entries: tuple[Entry, ...], with_snapshot: bool) -> Record | None:
        """A changed commit index alone is not worth a write: it is not needed for safety, and goes
        along with the next record. Unless it covers a change of membership: see membership.py."""
        state = self.state
        if not entries and not with_snapshot and not self._is_hard_state_due():
            return None
        changes = state.log.changes
        assert len(changes) < 2 or changes[-2] <= state.commit, (
            f"changes of membership {list(changes)} would be stored with commit {state.commit}"
        )
        hard_state = HardState(state.term, state.vote, state.commit)
        is_new = with_snapshot or hard_state != state.handed_hard_state
        state.handed_hard_state = hard_state
        return Record(hard_state=hard_state if is_new else None, entries=entries)

    def _is_hard_state_due(self) -> bool:
        state = self.state
        handed = state.handed_hard_state
        return handed.term != state.term or handed.vote != state.vote or state.is_change_unsaved()

    def _take_committed(self) -> tuple[Entry, ...]:
        state = self.state
        last = self._applicable_index()
        if state.applied >= last:
            return ()
        entries = state.log.entries(Index(state.applied + 1), last, state.config.apply_bytes_max)
        state.applied = entries[-1].index
        return tuple(entries)

    def _applicable_index(self) -> Index:
        """Only what is also durable here is applied: otherwise a single member could answer for a
        write that it loses in a crash, and the tables could be ahead of the log. Nothing while a
        snapshot is being installed, which holds all of it."""
        if self.state.installing is not None:
            return self.state.applied
        return min(self.state.commit, self.state.log.stable_index)

    def _soft_state(self) -> SoftState:
        return SoftState(role=self.state.role, leader=self.state.leader, term=self.state.term)

    def _is_soft_state_new(self) -> bool:
        handed, state = self._handed_soft_state, self.state
        return handed.role is not state.role or handed.leader != state.leader or handed.term != state.term

    def status(self) -> Status:
        state = self.state
        leading = state.leading
        progress = leading.progress if leading is not None else {}
        transfer_target = leading.transfer.target if leading is not None and leading.transfer else NOBODY
        return Status(
            member=state.member,
            role=state.role,
            term=state.term,
            vote=state.vote,
            leader=state.leader,
            commit=state.commit,
            applied=state.applied,
            first_index=Index(state.log.base_index + 1),
            last_index=state.log.last_index,
            stable_index=state.log.stable_index,
            membership=state.membership,
            transfer_target=transfer_target,
            peers=tuple(
                PeerStatus(
                    member=peer,
                    is_learner=peer in state.membership.learners,
                    state=one.state,
                    match_index=one.match_index,
                    next_index=one.next_index,
                    heard_at=one.heard_at,
                )
                for peer, one in progress.items()
            ),
        )
