"""Performs what the consensus core asks for: the shell around `raft.Raft`.

One mutex guards the core. Whoever brings news takes it, tells the core, and performs the effects that
come out before letting go: no effect of the core waits in a second place, so there is no order to get
wrong. All effects are cheap hand-overs: to the log writer, to an outbox, to the applier. Nothing
that blocks happens under the mutex.

    who brings news                          what it tells the core
    a Ray call of a peer                     step(message)
    a sender thread, with a return value     step(message), leader_suspected(peer)
    the log writer, after a sync             stable_to(index, term)
    the applier, after a change of members   membership_applied(index, membership)
    a Ray call of a gateway                  propose(data), read_index(), transfer_leadership(member)
    the timer thread                         tick(now)

Durability before promises: a vote or an ack (`Ready.messages_after_sync`) leaves in the log writer's
callback for the record that covers it, never earlier. The writer calls back in the order of
submission, so a record's callback also means that every earlier record is durable.

The applier's report, as a story, because two locks meet here. A change of members takes effect when its
entry is applied, and the applier holds the state's lock while it applies:

1. The applier applies the entry under the state's lock, and lets go of it.
2. It reports the resulting membership here, under the mutex. Between 1 and 2 the core still works with
   the members of before, which is what it would do if the entry were applied a moment later.
3. A snapshot may be installed between 1 and 2, and brings the membership of a later index. The report is
   then old, and is passed over by its index.
4. Only now are the callers answered who wait for the entry: the next change that they ask for finds this
   one done.

So neither lock is ever taken while the other is held.

Nothing in here needs a thread: `begin` and `tick` are enough to run a core under a clock of one's own;
`start_timer` adds the thread that calls `tick` in time.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from etcray.node.applier import Applier
from etcray.node.peers import Peers
from etcray.node.waiters import Waiter
from etcray.raft.errors import NotLeaderError
from etcray.raft.messages import Message
from etcray.raft.raft import Raft
from etcray.raft.ready import Ready, Role, SnapshotWanted, SoftState, Status
from etcray.raft.ready import Record as RaftRecord
from etcray_storage.log import Record
from etcray_storage.types import (
    NOBODY,
    EntryKind,
    HardState,
    Index,
    MemberId,
    Membership,
    SnapshotMeta,
    Term,
)

TIMER_STEP_SECONDS: Final = 0.001
"""The timer never looks sooner than this after it has looked."""


class RecordWriter(Protocol):
    """What the driver needs of `log.LogWriter`: records become durable in this order, and are called
    back for in this order, on another thread or later on this one, never inside of these calls."""

    def submit(self, record: Record, on_durable: Callable[[], None]) -> None: ...

    def submit_reset(
        self, index: Index, term: Term, hard_state: HardState, on_durable: Callable[[], None]
    ) -> None: ...


class ReadWaiter(Waiter[bool]):
    """A read that waits for ReadIndex, then for the index to be applied."""


class Driver:
    """Owns the core. Every method may be called from any thread."""

    def __init__(
        self,
        raft: Raft,
        writer: RecordWriter,
        hard_state: HardState,
        applier: Applier,
        clock: Callable[[], float],
        on_snapshot_wanted: Callable[[SnapshotWanted], None],
        on_snapshot: Callable[[SnapshotMeta], None],
        on_failure: Callable[[BaseException], None],
        mutex: AbstractContextManager[bool] | None = None,
    ) -> None:
        self._raft = raft
        self._writer = writer
        self._hard_state = hard_state
        self._applier = applier
        self._clock = clock
        self._on_snapshot_wanted = on_snapshot_wanted
        self._on_snapshot = on_snapshot
        self._on_failure = on_failure
        self._peers: Peers | None = None
        self._mutex = mutex if mutex is not None else threading.Lock()
        self._unsynced: deque[list[Message]] = deque()
        """For each record on its way to the disk, oldest first, what may leave once it is durable."""
        self._reads: dict[int, ReadWaiter] = {}
        """Reads by their ReadIndex token, until the core confirms or loses them."""
        self.soft_state = SoftState(role=Role.FOLLOWER, leader=NOBODY, term=hard_state.term)
        """Replaced as a whole, so it may be read without the mutex."""
        self._transitions: list[Waiter[bool]] = []
        """Who waits for the next change of leader, term or role."""
        self._membership_index = Index(0)
        """The core knows the membership as of here: what is reported of an earlier entry is old."""
        self._retired = False
        self._closed = False
        self._timer = threading.Thread(target=self._run_timer, name="raft-timer", daemon=True)
        self._timer_due = -math.inf
        """When the timer will look again if nobody wakes it; without one, nobody has to."""
        self._wake_timer = threading.Event()
        """Set when a deadline has moved to before `_timer_due`."""

    def begin(self, peers: Peers) -> None:
        """Begin to take part. What the core already knows to be committed is applied first."""
        self._peers = peers
        with self._mutex:
            self._perform()

    def start_timer(self) -> None:
        self._timer.start()

    def retire(self) -> None:
        """This member is none any more, and may not have applied the entry that says so: say nothing
        more. What is applied can still be read."""
        with self._mutex:
            self._retired = True
            before = self.soft_state
            self.soft_state = SoftState(role=Role.FOLLOWER, leader=NOBODY, term=before.term)
            transitions, self._transitions = self._transitions, []
            reads, self._reads = self._reads, {}
        self._applier.give_up_all()
        for waiter in (*reads.values(), *transitions):
            waiter.resolve(None)

    def close(self) -> None:
        self._closed = True
        self._wake_timer.set()
        if self._timer.is_alive():
            self._timer.join()
        with self._mutex:
            self._retired = True
            reads, self._reads = self._reads, {}
            transitions, self._transitions = self._transitions, []
        for waiter in (*reads.values(), *transitions):
            waiter.resolve(None)

    # --- news ---------------------------------------------------------------------------------

    def step(self, messages: list[Message]) -> bool:
        """Take messages of a peer. True if promises wait for the disk, so that a reply will follow."""
        with self._mutex:
            if self._retired:
                return False
            now = self._clock()
            for message in messages:
                self._raft.step(message, now)
            self._perform()
            return bool(self._unsynced)

    def peer_unreachable(self, member: MemberId) -> None:
        with self._mutex:
            if not self._retired:
                self._raft.leader_suspected(member, self._clock())
                self._perform()

    def propose(self, data: bytes, term: Term | None = None, kind: EntryKind = EntryKind.COMMANDS) -> None:
        """Append one entry, in `term` or in whichever term this member leads. Raises NotLeaderError
        or ProposalDroppedError; nothing was done then."""
        with self._mutex:
            if self._retired or (term is not None and term != self.soft_state.term):
                raise NotLeaderError(self.soft_state.leader)
            self._raft.propose(data, self._clock(), kind)
            self._perform()

    def read_index(self) -> ReadWaiter:
        """A waiter that is resolved once everything that was committed when this was called is
        applied here, or given up when this member loses its leadership. Raises NotLeaderError."""
        waiter = ReadWaiter()
        with self._mutex:
            if self._retired:
                raise NotLeaderError(NOBODY)
            token = self._raft.read_index(self._clock())
            self._reads[token] = waiter
            self._perform()
        return waiter

    def transfer_leadership(self, to: MemberId) -> Waiter[bool]:
        """Begin to hand the leadership over; the waiter is resolved at the next change of leader, term
        or role, whatever it is. Raises NotLeaderError or TransferRefusedError."""
        waiter: Waiter[bool] = Waiter()
        with self._mutex:
            if self._retired:
                raise NotLeaderError(NOBODY)
            self._raft.transfer_leadership(to, self._clock())
            self._transitions.append(waiter)
            self._perform()
        return waiter

    def next_transition(self, since: SoftState) -> Waiter[bool]:
        """Resolved as soon as leader, term or role are not those of `since` any more; with None if this
        member takes no part any more."""
        waiter: Waiter[bool] = Waiter()
        with self._mutex:
            if self.soft_state == since and not self._retired:
                self._transitions.append(waiter)
                return waiter
            value = None if self._retired else True
        waiter.resolve(value)
        return waiter

    def forget_transition(self, waiter: Waiter[bool]) -> None:
        with self._mutex:
            if waiter in self._transitions:
                self._transitions.remove(waiter)

    def membership_applied(self, index: Index, membership: Membership) -> None:
        """An entry of kind MEMBERSHIP was applied, and this came of it. For every such entry, in order."""
        with self._mutex:
            if self._retired or index <= self._membership_index:
                return
            self._membership_index = index
            self._raft.membership_applied(index, membership, self._clock())
            self._perform()

    def snapshot_sent(self, member: MemberId, index: Index, ok: bool) -> None:
        with self._mutex:
            self._raft.snapshot_sent(member, index, ok, self._clock())
            self._perform()

    def reset_log(self, meta: SnapshotMeta) -> None:
        """The state of the accepted snapshot is in place: begin the log anew behind it, in order
        with the records around, so that no later vote is lost and no earlier record comes after."""
        with self._mutex:
            self._hard_state = HardState(self._hard_state.term, self._hard_state.vote, meta.index)
            self._unsynced.append([])
            self._writer.submit_reset(
                meta.index, meta.term, self._hard_state, lambda: self._log_is_reset(meta)
            )

    def _log_is_reset(self, meta: SnapshotMeta) -> None:
        with self._mutex:
            promises = self._unsynced.popleft()
            self._membership_index = meta.index
            self._raft.snapshot_installed(meta, self._clock())
            self._send_all(promises)
            self._perform()

    def log_compacted_to(self, index: Index) -> None:
        with self._mutex:
            self._raft.log_compacted_to(index)

    @property
    def applied_index(self) -> Index:
        """Up to here the core has handed out what is committed, or has been reset to a snapshot."""
        return self.status().applied

    def status(self) -> Status:
        with self._mutex:
            return self._raft.status()

    def tick(self) -> float:
        """Do what is due, and return in how many seconds the next thing will be; infinite if nothing
        will before somebody brings news."""
        with self._mutex:
            return self._tick()

    def _tick(self) -> float:
        now = self._clock()
        if self._retired:
            return math.inf
        if now >= self._raft.next_deadline():
            self._raft.tick(now)
            self._perform()
        return self._raft.next_deadline() - now

    def _run_timer(self) -> None:
        """Sleeps until the next deadline, which mostly moves away meanwhile: with each message of the
        leader, with each append of an own. It may also come closer: the leader is suspected, this member
        begins to lead. Then `_perform` wakes it."""
        try:
            while not self._closed:
                with self._mutex:
                    pause = max(self._tick(), TIMER_STEP_SECONDS)
                    self._timer_due = self._clock() + pause
                self._wake_timer.wait(None if math.isinf(pause) else pause)
                self._wake_timer.clear()  # before the look: what is set from here on is seen by the next wait
        except BaseException as e:
            self._on_failure(e)
            raise

    # --- effects, all under the mutex ---------------------------------------------------------

    def _perform(self) -> None:
        while self._raft.has_ready():
            self._perform_one(self._raft.ready())
        if self._raft.next_deadline() < self._timer_due:
            self._wake_timer.set()

    def _perform_one(self, ready: Ready) -> None:
        peers = self._peers
        assert peers is not None, "the core produced effects before begin()"
        for message in ready.messages:
            peers.send(message)
        self._persist(ready.record, ready.messages_after_sync)
        if ready.snapshot is not None:
            self._on_snapshot(ready.snapshot)
        if ready.committed:
            self._applier.enqueue(ready.committed)
        for read in ready.read_states:
            waiter = self._reads.pop(read.token, None)
            if waiter is not None:
                self._applier.when_applied(read.index, waiter)
        for token in ready.reads_lost:
            lost = self._reads.pop(token, None)
            if lost is not None:
                lost.resolve(None)
        for wanted in ready.snapshots_wanted:
            self._on_snapshot_wanted(wanted)
        if ready.soft_state is not None:
            self._notice(ready.soft_state)

    def _persist(self, record: RaftRecord | None, promises: tuple[Message, ...]) -> None:
        """Hand the record to the log writer; promises without a record join the newest one."""
        if record is None:
            if self._unsynced:
                self._unsynced[-1].extend(promises)
            else:
                self._send_all(promises)
            return
        if record.hard_state is not None:
            # While the log's reset to a snapshot is on its way to the disk, the core has an older commit.
            commit = max(record.hard_state.commit, self._hard_state.commit)
            self._hard_state = HardState(record.hard_state.term, record.hard_state.vote, commit)
        self._unsynced.append(list(promises))
        last = record.entries[-1] if record.entries else None
        stable = (last.index, last.term) if last is not None else None
        self._writer.submit(
            Record(hard_state=self._hard_state, entries=record.entries), lambda: self._synced(stable)
        )

    def _synced(self, stable: tuple[Index, Term] | None) -> None:
        """A record is durable: its promises may leave. Called by the log writer, in order."""
        with self._mutex:
            messages = self._unsynced.popleft()
            if self._retired:
                return
            if stable is not None:
                self._raft.stable_to(*stable)
            self._send_all(messages)
            self._perform()

    def _send_all(self, messages: Sequence[Message]) -> None:
        assert self._peers is not None
        for message in messages:
            self._peers.send(message)

    def _notice(self, soft_state: SoftState) -> None:
        """A proposal of a term that this member does not lead any more may have been replaced in
        the log, so nobody here can promise an answer to it."""
        before, self.soft_state = self.soft_state, soft_state
        transitions, self._transitions = self._transitions, []
        for waiter in transitions:
            waiter.resolve(True)
        if before.role is Role.LEADER and (before.term, before.role) != (soft_state.term, soft_state.role):
            self._applier.give_up_all()
