"""Members with a simulated disk and network, driven by hand: the ground of all tests of the core.

Nothing happens by itself. A record becomes durable in `sync`, a message arrives in `deliver`, time
passes in `wait`. A crash loses what was not synced. Every call checks the member's own invariants.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from etcray.raft.config import RaftConfig
from etcray.raft.describe import describe_message, describe_ready
from etcray.raft.invariants import Invariants
from etcray.raft.messages import InstallSnapshotRequest, Message, decode_message, encode_message
from etcray.raft.raft import Raft
from etcray.raft.ready import Ready, Record, Role, SnapshotWanted
from etcray_storage.types import (
    Entry,
    EntryKind,
    HardState,
    Index,
    MemberId,
    Membership,
    SnapshotMeta,
    Term,
)

ELECTION_S = 1.0
HEARTBEAT_S = 0.1


class Disk:
    """What survives a crash. It is a `LogReader`."""

    def __init__(self) -> None:
        self.base_index = Index(0)
        self.base_term = Term(0)
        self.hard_state = HardState()
        self.flushed = Index(0)
        """The applied index of the durable tables."""
        self.membership = Membership()
        """What the tables hold as such."""
        self._entries: list[Entry] = []

    @property
    def last_index(self) -> Index:
        return Index(self.base_index + len(self._entries))

    def term(self, index: Index) -> Term:
        if index == self.base_index:
            return self.base_term
        assert self.base_index < index <= self.last_index, f"read of {index}, there is ..{self.last_index}"
        return self._entries[index - self.base_index - 1].term

    def entries(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        assert self.base_index < first <= last <= self.last_index, f"read of {first}..{last}"
        found: list[Entry] = []
        for entry in self._entries[first - self.base_index - 1 : last - self.base_index]:
            if found and sum(len(one.data) for one in found) + len(entry.data) > bytes_max:
                break
            found.append(entry)
        return found

    def holds(self, entry: Entry) -> bool:
        """Whether the entry, or a snapshot that includes it, is here."""
        if entry.index <= self.base_index:
            return True
        return entry.index <= self.last_index and self.term(entry.index) == entry.term

    def write(self, record: Record) -> None:
        if record.hard_state is not None:
            self.hard_state = record.hard_state
        if record.entries:
            first = record.entries[0].index
            assert self.base_index < first <= self.last_index + 1, f"gap: {first} after {self.last_index}"
            del self._entries[first - self.base_index - 1 :]
            self._entries.extend(record.entries)

    def compact(self, index: Index) -> None:
        assert self.base_index <= index <= self.flushed, f"compact to {index}, flushed {self.flushed}"
        term = self.term(index)
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def reset(self, meta: SnapshotMeta) -> None:
        self._entries.clear()
        self.base_index, self.base_term = meta.index, meta.term
        self.flushed = meta.index
        self.membership = meta.membership


def change_membership(membership: Membership, data: bytes) -> Membership:
    """What an entry of kind MEMBERSHIP does here: `learner 4`, `voter 4`, `promote 4` or `remove 4`.
    What makes no sense changes nothing, as in the real state machine."""
    name, number = data.decode().split()
    one = MemberId(int(number))
    voters, learners = set(membership.voters), set(membership.learners)
    known = one in voters | learners
    if name == "learner" and not known:
        learners.add(one)
    elif (name == "voter" and not known) or (name == "promote" and one in learners):
        learners.discard(one)
        voters.add(one)
    elif name == "remove" and voters - {one}:
        voters.discard(one)
        learners.discard(one)
    return Membership(tuple(sorted(voters)), tuple(sorted(learners)))


@dataclass
class Write:
    """One operation on its way to the disk, and the messages that wait for it."""

    record: Record
    snapshot: SnapshotMeta | None
    messages: list[Message] = field(default_factory=list)


class Member:
    """A driver as simple as it can be."""

    def __init__(
        self,
        config: RaftConfig,
        membership: Membership,
        seed: int,
        clock: Callable[[Member], float],
        send: Callable[[Message], None],
        observe: Callable[[Member, Ready], None],
    ) -> None:
        self.id = config.member
        self.config = config
        self.disk = Disk()
        self.disk.membership = membership
        self.rng = random.Random(seed)
        self.clock_rate = 1.0
        self.stalled = False
        """Its disk makes nothing durable unless told to by name."""
        self.applies_by_itself = True
        """Else entries are applied by calls of `apply` only."""
        self._clock = clock
        self._send = send
        self._observe = observe
        self.start(clock(self))

    def start(self, now: float) -> None:
        """Begin, or begin again after a crash, with what the disk has."""
        self.raft = Raft(
            self.config,
            self.disk,
            self.disk.hard_state,
            self.disk.membership,
            self.disk.flushed,
            self.rng,
            now,
        )
        self.invariants = Invariants(self.raft)
        self.running = True
        self.writes: deque[Write] = deque()
        self.applied: list[Entry] = []
        """Since the start or the last snapshot, no-ops included."""
        self.unapplied: deque[Entry] = deque()
        """Handed out, not applied yet."""
        self.applied_index = self.disk.flushed
        self.membership = self.disk.membership
        self.memberships: list[tuple[Index, Membership]] = [(self.disk.flushed, self.disk.membership)]
        """With the index from which on each was in effect."""
        self.answered: list[tuple[int, Index]] = []
        self.lost_reads: list[int] = []
        self.snapshots_wanted: list[SnapshotWanted] = []
        self.readies: list[Ready] = []

    def crash(self, writes_done: int = 0) -> None:
        """Lose everything in memory; the first `writes_done` writes reach the disk, unreported."""
        self.running = False
        for write in list(self.writes)[:writes_done]:
            self._write(write)
        self.writes.clear()

    def perform(self) -> None:
        """Take out everything that is ready, and do what needs no disk."""
        self.invariants.check()
        while self.raft.has_ready():
            ready = self.raft.ready()
            self.invariants.check()
            self.readies.append(ready)
            self._observe(self, ready)
            if ready.record is not None:
                self.writes.append(Write(ready.record, ready.snapshot))
            for message in ready.messages:
                self._send(message)
            if self.writes:
                self.writes[-1].messages.extend(ready.messages_after_sync)
            else:
                for message in ready.messages_after_sync:
                    self._send(message)
            self.unapplied.extend(ready.committed)
            if self.applies_by_itself:
                self._apply(len(self.unapplied))
            self.answered.extend((state.token, state.index) for state in ready.read_states)
            self.lost_reads.extend(ready.reads_lost)
            self.snapshots_wanted.extend(ready.snapshots_wanted)

    def apply(self, count: int) -> None:
        """Apply the oldest entries that were handed out."""
        self._apply(count)
        self.perform()

    def _apply(self, count: int) -> None:
        for _ in range(min(count, len(self.unapplied))):
            entry = self.unapplied.popleft()
            self.applied.append(entry)
            self.applied_index = entry.index
            if entry.kind is EntryKind.MEMBERSHIP:
                self.membership = change_membership(self.membership, entry.data)
                self.memberships.append((entry.index, self.membership))
                self.raft.membership_applied(entry.index, self.membership, self._clock(self))
                self.invariants.check()

    def sync(self, now: float, count: int | None = None) -> None:
        """Make the oldest writes durable, all of them unless a number is given."""
        for _ in range(len(self.writes) if count is None else min(count, len(self.writes))):
            write = self.writes.popleft()
            self._write(write)
            for message in write.messages:
                self._send(message)
            if write.snapshot is not None:
                self.applied = []
                self.unapplied.clear()
                self.applied_index = write.snapshot.index
                self.membership = write.snapshot.membership
                self.memberships = [(write.snapshot.index, write.snapshot.membership)]
                self.raft.snapshot_installed(write.snapshot, now)
            elif write.record.entries:
                last = write.record.entries[-1]
                self.raft.stable_to(last.index, last.term)
            self.perform()

    def _write(self, write: Write) -> None:
        self.disk.write(write.record)
        if write.snapshot is not None:
            self.disk.reset(write.snapshot)

    def flush(self, index: Index) -> None:
        """Make the tables durable up to an applied index."""
        assert index <= self.applied_index, f"flush {index}, applied {self.applied_index}"
        if index > self.disk.flushed:
            self.disk.flushed = index
            self.disk.membership = [one for since, one in self.memberships if since <= index][-1]

    def compact(self, index: Index) -> None:
        self.raft.log_compacted_to(index)
        self.disk.compact(index)

    def snapshot_meta(self) -> SnapshotMeta:
        state = self.raft.state
        term = state.log.term(self.applied_index)
        assert term is not None, f"no term for the applied entry {self.applied_index}"
        return SnapshotMeta(self.applied_index, term, self.membership)


class Cluster:
    """Members that talk through `network`, a list of messages that are on their way."""

    def __init__(
        self,
        voters: Iterable[int] = (1, 2, 3),
        learners: Iterable[int] = (),
        seed: int = 0,
        **limits: int,
    ) -> None:
        self.now = 0.0
        self.network: list[Message] = []
        self.cuts: set[frozenset[MemberId]] = set()
        self.events: list[str] = []
        """What happened, for recorded scenarios."""
        self.membership = Membership(
            tuple(MemberId(i) for i in sorted(voters)), tuple(MemberId(i) for i in sorted(learners))
        )
        """The founders'."""
        self._seed = seed
        self._limits = limits
        self.members: dict[MemberId, Member] = {}
        for member in self.membership.voters + self.membership.learners:
            self.join(member)

    def __getitem__(self, member: int) -> Member:
        return self.members[MemberId(member)]

    def join(self, member: int) -> Member:
        """Start a member with an empty disk. All it knows is the founders."""
        config = RaftConfig(
            member=MemberId(member), election_s=ELECTION_S, heartbeat_s=HEARTBEAT_S, **self._limits
        )
        seed = self._seed * 1000 + len(self.members)
        one = Member(config, self.membership, seed, self.clock, self.send, self.observe)
        self.members[one.id] = one
        return one

    def observe(self, member: Member, ready: Ready) -> None:
        self.events.extend(f"{member.id}: {line}" for line in describe_ready(ready))

    # --- the network ----------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Through the wire format, so that every test is one of the format as well."""
        self.network.append(decode_message(encode_message(message)))

    def is_cut(self, one: MemberId, other: MemberId) -> bool:
        return frozenset((one, other)) in self.cuts

    def cut(self, one: int, other: int) -> None:
        self.cuts.add(frozenset((MemberId(one), MemberId(other))))

    def isolate(self, member: int) -> None:
        for other in self.members:
            if other != member:
                self.cut(member, other)

    def take(self, sender: int | None = None, recipient: int | None = None) -> list[Message]:
        """Remove messages from the network: those of one direction, or all."""
        taken = [
            message
            for message in self.network
            if sender in (None, message.sender) and recipient in (None, message.recipient)
        ]
        self.network = [message for message in self.network if all(message is not one for one in taken)]
        return taken

    def arrive(self, message: Message) -> None:
        member = self.members.get(message.recipient)
        if member is None or not member.running or self.is_cut(message.sender, message.recipient):
            self.events.append(f"lost {describe_message(message)}")
            return
        self.events.append(f"arrives {describe_message(message)}")
        member.raft.step(message, self.clock(member))
        member.perform()

    def deliver(self, sender: int | None = None, recipient: int | None = None) -> None:
        """Let those messages arrive that are on their way now, in their order."""
        for message in self.take(sender, recipient):
            self.arrive(message)

    # --- time and disks -------------------------------------------------------------------

    def clock(self, member: Member) -> float:
        return self.now * member.clock_rate

    def sync(self) -> None:
        for member in self.members.values():
            if member.running and not member.stalled:
                member.sync(self.clock(member))

    def settle(self, rounds_max: int = 200) -> None:
        """Sync and deliver until nothing is on its way. No time passes."""
        for _ in range(rounds_max):
            self.sync()
            if not self.network:
                return
            self.deliver()
        raise AssertionError(f"the cluster does not come to rest: {len(self.network)} messages")

    def tick(self, member: int) -> None:
        """Advance the time to a member's next deadline, and let it alone notice."""
        one = self[member]
        self.now = max(self.now, one.raft.next_deadline() / one.clock_rate)
        one.raft.tick(self.clock(one))
        one.perform()

    def tick_due(self) -> None:
        for one in self.members.values():
            if one.running and self.clock(one) >= one.raft.next_deadline():
                one.raft.tick(self.clock(one))
                one.perform()

    def wait(self, seconds: float) -> None:
        """Let time pass in a healthy cluster: everything due is done and delivered on the way."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + HEARTBEAT_S / 4)
            self.tick_due()
            self.settle()

    # --- what tests do all the time -------------------------------------------------------

    def elect(self, member: int) -> Member:
        """Make a member leader by letting its election timeout run out first."""
        heard_at = max(one.raft.state.leader_heard_at for one in self.members.values() if one.running)
        self.now = max(self.now, heard_at + 2 * ELECTION_S)
        self[member].raft.state.election_deadline = self.now
        self.tick(member)
        self.settle()
        leader = self[member]
        assert leader.raft.state.role is Role.LEADER, f"{member} is {leader.raft.state.role}"
        self.tick(member)
        self.settle()
        return leader

    def propose(self, member: int, data: bytes, kind: EntryKind = EntryKind.COMMANDS) -> Index:
        one = self[member]
        index = one.raft.propose(data, self.clock(one), kind)
        one.perform()
        return index

    def change(self, member: int, change: str) -> Index:
        """Propose a change of membership: see `change_membership`."""
        return self.propose(member, change.encode(), EntryKind.MEMBERSHIP)

    def transfer_leadership(self, member: int, to: int) -> None:
        one = self[member]
        one.raft.transfer_leadership(MemberId(to), self.clock(one))
        one.perform()

    def read(self, member: int) -> int:
        one = self[member]
        token = one.raft.read_index(self.clock(one))
        one.perform()
        return token

    def suspect(self, member: int, suspected: int) -> None:
        one = self[member]
        one.raft.leader_suspected(MemberId(suspected), self.clock(one))
        one.perform()

    def crash(self, member: int, writes_done: int = 0) -> None:
        self[member].crash(writes_done)

    def restart(self, member: int) -> None:
        one = self[member]
        one.start(self.clock(one))
        one.perform()

    def transfer_snapshot(self, leader: int, ok: bool = True) -> None:
        """Carry out the oldest transfer that the leader asked for."""
        one = self[leader]
        wanted = one.snapshots_wanted.pop(0)
        meta = one.snapshot_meta()
        if ok:
            self.send(InstallSnapshotRequest(one.id, wanted.member, wanted.term, meta))
        one.raft.snapshot_sent(wanted.member, meta.index, ok, self.clock(one))
        one.perform()

    def leaders(self) -> list[Member]:
        return [m for m in self.members.values() if m.running and m.raft.state.role is Role.LEADER]
