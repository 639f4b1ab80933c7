"""What must be true of the whole cluster after every step, and a record of what was true.

`Checker` sees every `Ready` of every member's core and every entry that any member applies. The first
member that applies an entry decides what is *canonical*; all others must agree: the same entry, the same
changes, the same answers, the same state. The checks are the properties of figure 3 of the Raft paper and
what the package essays of `node` and `machine` promise.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from etcray.node.envelope import decode_envelope
from etcray.raft.config import RaftConfig
from etcray.raft.invariants import Invariants
from etcray.raft.log import LogReader
from etcray.raft.messages import AppendResponse, VoteRequest, VoteResponse
from etcray.raft.raft import Raft
from etcray.raft.ready import Ready, Role
from etcray_storage.commands import (
    Batch,
    BatchAnswer,
    CommandKind,
    decode_batch,
    decode_lease_expiry,
    decode_payload,
)
from etcray_storage.errors import SESSION_EXPIRED
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.rows import Change
from etcray_storage.types import NOBODY, Entry, HardState, Index, MemberId, Membership, Term
from tests.simulation.hosts import Host, Hosts
from tests.simulation.primitives import the
from tests.simulation.scheduler import Process

INVARIANTS_EVERY = 6
"""Readies of one member between two checks of its own invariants."""

DUMP_EVERY = 7
"""Entries between two comparisons of the whole state."""

_encode = msgspec.msgpack.Encoder().encode


class Applied(NamedTuple):
    """One entry of the log, as the first member that applied it has it."""

    term: Term
    digest: int
    """Of the entry, its changes, its answers, and where the store was afterwards."""
    state_hash: int
    """The machine's own; 0 if it has none."""


class Checker:
    def __init__(self) -> None:
        self.hosts: Hosts
        self.applied: list[Applied] = [Applied(Term(0), 0, 0)]
        """By index."""
        self.changes: list[Change] = []
        """Every event there ever was, in order."""
        self.revision = 1
        self.answers: dict[tuple[int, int], int] = {}
        """By session and sequence: a digest of what the first application answered."""
        self.lease_ends: dict[int, float] = {}
        """When the first member applied the leader's decision that a lease has ended."""
        self.lease_deletions: dict[int, list[bytes]] = {}
        """By revision: the keys that went with a lease."""
        self.memberships: list[Membership] = []
        """As of each entry that changed it; the first is that of the founders."""
        self.diverged: set[MemberId] = set()
        """Members whose state was changed behind their backs: the product has to notice them."""
        self.counts: Counter[str] = Counter()
        self._leaders: dict[Term, MemberId] = {}
        self._entries: dict[tuple[Index, Term], tuple[int, Term]] = {}
        """By index and term: a digest of the data, and the term of the entry before."""
        self._dumps: dict[Index, int] = {}

    # --- consensus ------------------------------------------------------------------------------

    def observe(self, raft: ObservedRaft, ready: Ready) -> None:
        state = raft.state
        if ready.soft_state is not None and ready.soft_state.role is Role.LEADER:
            self._check_new_leader(raft, ready.soft_state.term)
        if ready.record is not None and ready.record.entries:
            self._check_log_matching(raft, ready.record.entries)
        if state.leading is not None and state.commit > raft.checked_commit:
            self._check_durable(raft)
        raft.checked_commit = state.commit

    def _check_new_leader(self, raft: ObservedRaft, term: Term) -> None:
        """Election Safety (5.2) and Leader Completeness (5.4.3)."""
        self.counts["elections"] += 1
        member = raft.state.member
        assert self._leaders.setdefault(term, member) == member, (
            f"{member:x} and {self._leaders[term]:x} both lead term {term}"
        )
        log = raft.state.log
        for index in range(log.base_index + 1, len(self.applied)):
            assert log.term(Index(index)) == self.applied[index].term, (
                f"{raft.host.name} leads term {term} without the committed entry {index}"
            )

    def _check_log_matching(self, raft: ObservedRaft, entries: Sequence[Entry]) -> None:
        """Log Matching (5.3), by induction: index and term determine an entry and the one before."""
        if len(raft.state.membership.voters) == 1:
            return  # it may come back in the same term, but nobody has seen those entries
        previous = raft.state.log.term(Index(entries[0].index - 1))
        assert previous is not None, f"{raft.host.name} has {entries[0].index} but nothing before it"
        for entry in entries:
            here = (zlib.crc32(entry.data), previous)
            known = self._entries.setdefault((entry.index, entry.term), here)
            assert known == here, (
                f"{raft.host.name} has another {entry.index}/{entry.term} than somebody else"
            )
            previous = entry.term

    def check_promises(self, host: Host, process: Process, payload: bytes) -> None:
        """Votes and acknowledgements that leave a member are on its disk. (Of the term that the disk is
        in: an older one may have been overtaken on its way through the outbox.)"""
        if host.disk.holder is not process or host.is_wiped:
            return
        log = host.disk.log
        term, vote = log.hard_state.term, log.hard_state.vote
        for message in decode_envelope(payload).messages:
            promised = NOBODY
            if isinstance(message, VoteResponse) and message.granted:
                promised = message.recipient
            elif isinstance(message, VoteRequest):
                promised = message.sender
            elif isinstance(message, AppendResponse) and message.term == term:
                assert message.match <= log.last_index, (
                    f"{host.name} acknowledges {message.match}, durable is {log.last_index}"
                )
            if promised != NOBODY:
                assert term > message.term or (term == message.term and vote == promised), (
                    f"{host.name} votes for {promised:x} in term {message.term}, durable is {term}/{vote:x}"
                )

    def _check_durable(self, raft: ObservedRaft) -> None:
        """What a leader commits is on the disks of a majority of its configuration. A disk that was
        damaged or lost since its ack is believed."""
        state = raft.state
        voters = state.membership.voters
        assert state.log.term(state.commit) == state.term, (
            f"{raft.host.name} commits {state.commit} of an older term by counting (5.4.2)"
        )
        for index in range(raft.checked_commit + 1, state.commit + 1):
            term = state.log.term(Index(index))
            if term is None:
                continue
            holders = [voter for voter in voters if self._holds(voter, Index(index), term)]
            assert 2 * len(holders) > len(voters), (
                f"{raft.host.name} commits {index}/{term}, which is durable only on "
                f"{[self.hosts.hosts[h].name for h in holders]} of {len(voters)} voters"
            )

    def _holds(self, member: MemberId, index: Index, term: Term) -> bool:
        host = self.hosts.hosts[member]
        return (
            host.is_quarantined or host.is_wiped or host.disk.is_damaged or host.disk.log.holds(index, term)
        )

    # --- the state machine ------------------------------------------------------------------------

    def entry_applied(self, host: Host, entry: Entry, answers: list[BatchAnswer], machine: Any) -> None:
        """State Machine Safety (5.4.3), and that nothing is applied that this member may lose."""
        the.world.note(entry.data)
        if host.id in self.diverged:
            return
        index = entry.index
        assert (
            host.is_quarantined
            or host.disk.holder is not the.process
            or host.disk.log.holds(index, entry.term)
        ), f"{host.name} applies {index}, which it may still lose"
        digest = zlib.crc32(_encode(answers), zlib.crc32(entry.data))
        digest = zlib.crc32(_encode((machine.changes, machine.revision, machine.compact_revision)), digest)
        here = Applied(entry.term, digest, machine.state_hash)
        if index == len(self.applied):
            self.applied.append(here)
            self._first_applied(entry, answers, machine)
        else:
            assert index < len(self.applied), f"{index} applied, {len(self.applied)} is next"
            known = self.applied[index]
            assert known.term == entry.term, f"{host.name} applies {index}/{entry.term}, others /{known.term}"
            assert known == here, (
                f"{host.name} applies {index} with another result than others: {known} {here}"
            )
        if index % DUMP_EVERY == 0:
            self.compare_dump(host, machine)

    def _first_applied(self, entry: Entry, answers: list[BatchAnswer], machine: Any) -> None:
        before = self.revision
        for change in machine.changes:
            assert change.main >= self.revision, f"revision {change.main} after {self.revision}"
            self.revision = change.main
        self.changes += machine.changes
        for answer in answers:
            self.answers.setdefault((answer.session, answer.sequence), digest_of(answer))
        membership = machine.membership
        if not self.memberships or self.memberships[-1] != membership:
            if self.memberships:
                self._check_overlap(self.memberships[-1], membership)
            self.memberships.append(membership)
        if entry.data:
            for encoded, answer in zip(decode_payload(entry.data).batches, answers, strict=True):
                self._note_lease_ends(decode_batch(encoded), answer, before, machine)
                before = max([before, *answer.revisions])

    def _check_overlap(self, before: Membership, now: Membership) -> None:
        """Any majority before shares a voter with any majority afterwards (thesis 4.1)."""
        assert len(set(before.voters) ^ set(now.voters)) <= 1, f"from {before} to {now} in one step"
        self.counts["membership changes"] += 1

    def _note_lease_ends(self, batch: Batch, answer: BatchAnswer, before: int, machine: Any) -> None:
        for kind, request, revision in zip(batch.kinds, batch.requests, answer.revisions, strict=True):
            if kind in (CommandKind.LEASE_EXPIRE, CommandKind.LEASE_REVOKE):
                for change in machine.changes:
                    if before < change.main <= revision:
                        self.lease_deletions.setdefault(change.main, []).append(change.key)
            if kind == CommandKind.LEASE_EXPIRE:
                for lease in decode_lease_expiry(request).leases:
                    if lease not in machine.leases:
                        self.lease_ends.setdefault(lease, the.world.now)
                        self.counts["expiries"] += 1
            before = max(before, revision)

    def compare_dump(self, host: Host, machine: Any) -> None:
        """The whole state, as far as it is small."""
        self.counts["dumps"] += 1
        index = machine.applied_index
        digest = zlib.crc32(_encode(dump(machine)))
        known = self._dumps.setdefault(index, digest)
        assert known == digest, (
            f"{host.name} has another state at {index} than somebody else: {dump(machine)}"
        )

    def answered(self, answer: BatchAnswer) -> None:
        """A gateway got this: it must be what the log's entry did, when it was first applied."""
        if answer.errors and answer.errors[0] == SESSION_EXPIRED.number:
            return
        known = self.answers.get((answer.session, answer.sequence))
        assert known is not None, f"batch {answer.sequence} was answered, and is not in the log"
        assert known == digest_of(answer), f"batch {answer.sequence} was answered with something else"


def digest_of(answer: BatchAnswer) -> int:
    return zlib.crc32(_encode(answer))


def dump(machine: Any) -> list[Any]:
    """Everything replicated that has influence on later answers."""
    store = machine._store
    return [
        machine.applied_index,
        machine.applied_term,
        store.revision,
        store.compact_revision,
        [record.key_value for record in store.index.records(b"\0", b"\0")],
        sorted((lease, known) for lease, known in machine.leases.items()),
        [(session, known) for session, known in machine._sessions._sessions.items()],
        machine.alarms,
        machine._clock.time_ms,
        machine.members,
        sorted(machine.removed_ids),
    ]


class _TheChecker:
    checker: Checker


watching = _TheChecker()
"""The checker of the running simulation."""


class ObservedRaft(Raft):
    """The core of one incarnation, under observation."""

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
        super().__init__(config, log, hard_state, membership, applied, rng, now)
        self.host: Host = the.process.host  # type: ignore[attr-defined]
        self.checked_commit = self.state.commit
        self._invariants = Invariants(self)
        self._readies = 0

    def ready(self) -> Ready:
        self._readies += 1
        if self._readies % INVARIANTS_EVERY == 0:
            self._invariants.check()
        ready = super().ready()
        watching.checker.observe(self, ready)
        return ready

    def membership_applied(self, index: Index, membership: Membership, now: float) -> None:
        self._invariants.check()  # what was committed before was committed by the majority of before
        super().membership_applied(index, membership, now)
        self._invariants.check()


class ObservedMachine(StateMachine):
    """The state machine of one incarnation, under observation."""

    def apply(self, entry: Entry) -> list[BatchAnswer]:
        answers = super().apply(entry)
        host: Host = the.process.host  # type: ignore[attr-defined]
        watching.checker.entry_applied(host, entry, answers, self)
        return answers

    def restore(self, *parts: Any, **named: Any) -> None:
        super().restore(*parts, **named)
        if self.applied_index:
            host: Host = the.process.host  # type: ignore[attr-defined]
            watching.checker.compare_dump(host, self)
