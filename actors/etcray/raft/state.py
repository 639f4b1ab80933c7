"""What a member remembers, and the few changes that every part of the core needs.

Rules for this file: terms and votes change only here; leadership ends only in `become_follower`. The
handlers decide; they call each other only downwards:
membership -> election -> leader -> transfer -> state, follower -> state.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from etcray.raft import quorum
from etcray.raft.config import RaftConfig
from etcray.raft.log import LogReader, RaftLog
from etcray.raft.messages import Message
from etcray.raft.progress import Progress
from etcray.raft.quorum import Number
from etcray.raft.read_index import ReadRounds, ReadState
from etcray.raft.ready import Role, SnapshotWanted
from etcray_storage.types import NOBODY, HardState, Index, MemberId, Membership, SnapshotMeta, Term


class Transfer:
    """Leadership on its way to another member (thesis 3.10)."""

    __slots__ = ("deadline", "is_told", "target")

    def __init__(self, target: MemberId, deadline: float) -> None:
        self.target = target
        """A voter. NOBODY: any voter, because this leader was removed."""
        self.deadline = deadline
        self.is_told = False
        """`TimeoutNow` has left; it is repeated with each heartbeat."""


class Leadership:
    """What exists only while this member leads, and ends with its leadership."""

    def __init__(self, membership: Membership, member: MemberId, last_index: Index, now: float) -> None:
        self.progress: dict[MemberId, Progress] = {}
        """Of every other member, voter or not, sorted."""
        self.voter_progress: tuple[Progress, ...] = ()
        """Of those that count. The leader counts besides them while it is a voter itself."""
        self.adopt(membership, member, last_index, now)
        self.first_index = Index(last_index + 1)
        """The no-op that opened the term: this and every later entry is of the leader's term."""
        self.reads = ReadRounds()
        self.uncommitted: deque[tuple[Index, int]] = deque()
        """Index and size of own proposals that are not committed."""
        self.uncommitted_bytes = 0
        self.transfer: Transfer | None = None
        """Not None: no proposals are taken."""
        self.removed_at = Index(0)
        """The entry that made this leader no voter. It leads on until the others know: transfer.py."""
        self.flush_due = True
        """There may be something to send to somebody."""

    def adopt(self, membership: Membership, member: MemberId, last_index: Index, now: float) -> None:
        """Keep what is known of members that stay; whoever is new gets an election timeout to answer."""
        peers = sorted({*membership.voters, *membership.learners} - {member})
        known = self.progress
        self.progress = {peer: known.get(peer) or Progress(last_index, now) for peer in peers}
        self.voter_progress = tuple(self.progress[peer] for peer in peers if peer in membership.voters)


class State:
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
        self.config = config
        self.member = config.member
        self.rng = rng
        self.now = now
        """The latest reading that the caller passed; never goes back."""
        self.log = RaftLog(log, config.log_cache_bytes)
        self.log.find_changes(applied, config.apply_bytes_max)
        assert self.log.base_index <= applied <= self.log.last_index, (
            f"applied {applied}, but the log has {self.log.base_index + 1}..{self.log.last_index}"
        )
        assert self.log.last_term <= hard_state.term, (
            f"log ends with term {self.log.last_term}, the member's term is {hard_state.term}"
        )

        self.term = hard_state.term
        self.vote = hard_state.vote
        self.commit = Index(max(min(hard_state.commit, self.log.last_index), applied))
        """Known to be committed up to here. Never falls, except that a crash may forget some."""
        self.applied = applied
        """Handed out for apply up to here; <= commit and <= the log's stable index."""
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.leader_heard_at = now
        self.votes: dict[MemberId, bool] = {}
        """Answers to this member's running pre-vote or vote."""
        self.leading: Leadership | None = None
        """Not None just while the role is LEADER."""
        self.installing: SnapshotMeta | None = None
        """Accepted, not installed yet. Meanwhile the log does not grow and no election is begun."""
        self.campaign_wanted_at = Index(0)
        """The leader told this member to campaign when its log ended here, but it must first apply a
        change of membership. 0: nothing of the kind."""
        self.last_read_token = 0

        self.handed_hard_state = hard_state
        self.messages: list[Message] = []
        self.messages_after_sync: list[Message] = []
        self.read_states: list[ReadState] = []
        self.reads_lost: list[int] = []
        self.snapshots_wanted: list[SnapshotWanted] = []
        self.snapshot_to_hand_out: SnapshotMeta | None = None

        self.election_timeout = 0.0
        self.election_deadline = 0.0
        self.draw_election_timeout()
        self.adopt(membership)

    # --- membership -----------------------------------------------------------------------

    def adopt(self, membership: Membership) -> None:
        """Go by this membership from now on: it is that of the applied state."""
        assert membership.voters, "a membership without voters can never decide anything"
        self.membership = membership
        self.members = frozenset(membership.voters) | frozenset(membership.learners)
        self.is_voter = self.member in membership.voters
        if membership.voters == (self.member,) and self.leading is None:
            self.election_deadline = self.now  # There is nobody to wait for.

    def newest_committed_change(self) -> Index:
        """The newest MEMBERSHIP entry that is known to be committed and not known to be applied; 0 if
        there is none."""
        found = Index(0)
        for index in self.log.changes:
            if index > self.commit:
                break
            found = index
        return found

    def is_change_unsaved(self) -> bool:
        """Whether a MEMBERSHIP entry is committed and no record says so yet: one more must."""
        return bool(self.log.changes) and self.handed_hard_state.commit < self.newest_committed_change()

    # --- time -----------------------------------------------------------------------------

    def advance_clock(self, now: float) -> None:
        if now > self.now:
            self.now = now

    def draw_election_timeout(self) -> None:
        """A new random timeout, beginning now (5.2: so that votes are rarely split)."""
        self.election_timeout = self.config.election_s * (1.0 + self.rng.random())
        self.election_deadline = self.now + self.election_timeout

    def heard_leader(self, leader: MemberId) -> None:
        """A message of the current term's leader: nobody needs another one for a while."""
        self.leader = leader
        self.leader_heard_at = self.now
        self.election_deadline = self.now + self.election_timeout

    def protects_leader(self) -> bool:
        """Whether there is a leader that must not be disturbed by a candidate (section 6, last
        part; thesis 4.2.3). A leader protects itself as long as it hears a majority."""
        if self.leading is not None:
            return self.now < self.quorum_heard_at() + self.config.election_s
        return self.leader != NOBODY and self.now < self.leader_heard_at + self.config.election_s

    def quorum_heard_at(self) -> float:
        """The last moment by which a majority, this leader included, had been heard."""
        assert self.leading is not None, "only a leader counts whom it hears"
        heard = [progress.heard_at for progress in self.leading.voter_progress]
        return self.reached_with_own(heard, self.now)

    def reached_with_own(self, values: Sequence[Number], own: Number) -> Number:
        """The largest number that a majority has reached. One value of each other voter; the own one
        counts if this leader is a voter itself."""
        counted: list[Number] = list(values)
        if self.is_voter:
            counted.append(own)
        return quorum.reached_by_majority(counted)

    # --- role, term and vote --------------------------------------------------------------

    def become_follower(self, term: Term, leader: MemberId) -> None:
        """Adopt a term that is at least the own one, and give up whatever role this member had."""
        assert term >= self.term, f"term would fall from {self.term} to {term}"
        if term > self.term:
            self.term = term
            self.vote = NOBODY
        if self.leading is not None:
            self.reads_lost.extend(self.leading.reads.unanswered())
            self.leading = None
        self.role = Role.FOLLOWER
        self.leader = leader
        self.votes = {}
        self.campaign_wanted_at = Index(0)
        self.draw_election_timeout()

    def grant_vote(self, candidate: MemberId) -> None:
        assert self.vote in (NOBODY, candidate), f"second vote in term {self.term}: {self.vote}, {candidate}"
        self.vote = candidate

    # --- effects --------------------------------------------------------------------------

    def commit_to(self, index: Index) -> None:
        assert self.commit <= index <= self.log.last_index, (
            f"commit {self.commit} -> {index}, log ends at {self.log.last_index}"
        )
        self.commit = index

    def send(self, message: Message) -> None:
        """For what promises nothing about this member's disk."""
        self.messages.append(message)

    def send_after_sync(self, message: Message) -> None:
        """For votes and acknowledgements: they hold only once they are durable."""
        self.messages_after_sync.append(message)
