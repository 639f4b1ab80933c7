"""The driver's order of effects: what may leave, and be answered, only after something else.

The core, the applier and the outboxes are the real ones. Records become durable and entries are applied
when the test says so.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.envelope import Fence, Wellbeing
from etcray.node.peers import Peer, Peers, PeerUnreachableError
from etcray.raft.config import RaftConfig
from etcray.raft.messages import AppendRequest, AppendResponse, Message, VoteRequest, VoteResponse
from etcray.raft.raft import Raft
from etcray.raft.ready import Record as RaftRecord
from etcray.raft.ready import Role
from etcray_storage.commands import Batch, Payload, encode_batch, encode_payload
from etcray_storage.log import Record
from etcray_storage.machine.machine import StateMachine
from etcray_storage.types import (
    ClusterId,
    Entry,
    EntryKind,
    HardState,
    Incarnation,
    Index,
    MemberId,
    Membership,
    SnapshotMeta,
    Term,
)
from tests.raft.cluster import Disk
from tests.storage.machine_driver import MEMBERS, MemoryTables

ME, OTHER = MemberId(1), MemberId(2)
SESSION = 9


def no_failure(failure: BaseException) -> None:
    raise failure


class HeldWriter:
    """A `RecordWriter` whose disk waits for `sync`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.waiting: deque[tuple[Record, Callable[[], None]]] = deque()
        self.resets: list[HardState] = []
        """None of them becomes durable."""

    def submit(self, record: Record, on_durable: Callable[[], None]) -> None:
        self.waiting.append((record, on_durable))

    def submit_reset(
        self, index: Index, term: Term, hard_state: HardState, on_durable: Callable[[], None]
    ) -> None:
        self.resets.append(hard_state)

    def sync(self) -> None:
        """The oldest record is durable now."""
        record, on_durable = self.waiting.popleft()
        self._disk.write(RaftRecord(hard_state=record.hard_state, entries=record.entries))
        on_durable()


class NoSender:
    """Nothing is called: the test looks into the outbox."""

    def __init__(self, peers: Peers, peer: Peer) -> None:
        pass

    def join(self, timeout: float) -> None:
        pass


class NoChannel:
    """Makes the peer known; nobody uses it."""

    def exchange(self, envelope: bytes) -> bytes:
        raise PeerUnreachableError

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        raise PeerUnreachableError


class Bench:
    """One member's driver with everything around it, and one peer."""

    def __init__(self, *voters: MemberId) -> None:
        self.now = 0.0
        self.disk = Disk()
        self.writer = HeldWriter(self.disk)
        self.applier = Applier(
            StateMachine(MemoryTables(), MEMBERS), lambda *_: None, lambda *_: None, no_failure
        )
        config = RaftConfig(member=ME, election_s=1.0, heartbeat_s=0.1)
        raft = Raft(config, self.disk, HardState(), Membership(voters), Index(0), random.Random(1), 0.0)
        self.driver = Driver(
            raft,
            self.writer,
            HardState(),
            self.applier,
            lambda: self.now,
            lambda _: None,
            lambda _: None,
            no_failure,
        )
        fence = Fence(
            ClusterId(1), ME, Incarnation(1), lambda _: False, lambda: Wellbeing(Index(0), 0, False)
        )
        self.peers = Peers(fence, lambda _: None, lambda _: None, no_failure, NoSender)
        self.peers.connect(OTHER, NoChannel())
        self.driver.begin(self.peers)

    def sent(self) -> list[Message]:
        """What has left since the last call."""
        peer = self.peers.peer(OTHER)
        assert peer is not None
        return peer.take_now()

    def lead_alone(self) -> None:
        """Become the leader of one, with the no-op of the term durable and applied."""
        self.driver.tick()
        while self.writer.waiting:
            self.writer.sync()
        assert self.driver.soft_state.role is Role.LEADER
        while self.applier.apply_queued():
            pass


def opening() -> bytes:
    batch = Batch(SESSION, 0, 0, b"", [])
    return encode_payload(Payload(1, [encode_batch(batch)]))


def append(term: int, index: int) -> AppendRequest:
    """One entry behind the first `index - 1`, which have the same term."""
    previous_term = Term(term if index > 1 else 0)
    entry = Entry(Index(index), Term(term), EntryKind.COMMANDS, opening())
    return AppendRequest(OTHER, ME, Term(term), Index(index - 1), previous_term, Index(0), 0, (entry,))


def test_a_vote_leaves_when_its_record_is_durable() -> None:
    bench = Bench(ME, OTHER, MemberId(3))
    waits = bench.driver.step([VoteRequest(OTHER, ME, Term(1), Index(0), Term(0), False)])
    assert waits
    assert bench.sent() == []
    bench.writer.sync()
    assert [(type(message), message.term) for message in bench.sent()] == [(VoteResponse, Term(1))]


def test_an_acknowledgement_leaves_when_its_own_record_is_durable() -> None:
    bench = Bench(ME, OTHER, MemberId(3))
    bench.driver.step([append(1, 1)])
    bench.driver.step([append(1, 2)])
    assert bench.sent() == []
    matches = []
    for _ in range(2):
        bench.writer.sync()
        matches.append([message.match for message in bench.sent() if isinstance(message, AppendResponse)])
    assert matches == [[1], [2]]


def test_a_promise_without_a_record_waits_for_the_record_under_way() -> None:
    """1. An append is on its way to the disk. 2. The leader sends it again. 3. The second acknowledgement
    must not leave before what it speaks of is durable, although there is nothing more to write."""
    bench = Bench(ME, OTHER, MemberId(3))
    bench.driver.step([append(1, 1)])
    bench.driver.step([append(1, 1)])
    assert len(bench.writer.waiting) == 1
    assert bench.sent() == []
    bench.writer.sync()
    assert len(bench.sent()) == 2


def test_the_written_commit_does_not_go_back_while_the_log_is_reset_to_a_snapshot() -> None:
    """1. A snapshot's state is in place, and the log's reset is on its way to the disk. 2. The term changes.
    3. The core, which learns of the reset when it is durable, still goes by its old commit."""
    voters = (ME, OTHER, MemberId(3))
    bench = Bench(*voters)
    bench.driver.reset_log(SnapshotMeta(Index(7), Term(1), Membership(voters)))
    bench.driver.step([VoteRequest(OTHER, ME, Term(2), Index(9), Term(1), False)])
    ((record, _),) = bench.writer.waiting
    assert [hard_state.commit for hard_state in bench.writer.resets] == [7]
    assert (record.hard_state.term, record.hard_state.vote, record.hard_state.commit) == (2, OTHER, 7)


def test_a_read_waits_until_what_it_must_see_is_applied() -> None:
    bench = Bench(ME)
    bench.lead_alone()
    bench.driver.propose(opening())
    bench.writer.sync()
    read = bench.driver.read_index()
    assert not read.is_resolved
    assert bench.applier.apply_queued()
    assert read.wait(0) is True


def test_a_proposal_is_not_applied_before_it_is_durable() -> None:
    bench = Bench(ME)
    bench.lead_alone()
    bench.driver.propose(opening())
    assert not bench.applier.apply_queued()
    bench.writer.sync()
    assert bench.applier.apply_queued()


def test_proposals_are_given_up_with_the_leadership_and_not_before() -> None:
    bench = Bench(ME)
    bench.lead_alone()
    answer = bench.applier.expect((SESSION, 0))
    bench.driver.propose(opening())
    bench.driver.step([append(5, 1)])
    assert bench.driver.soft_state.role is Role.FOLLOWER
    assert answer.is_resolved
    assert answer.wait(0) is None


def test_a_member_that_takes_no_part_any_more_says_nothing() -> None:
    bench = Bench(ME, OTHER, MemberId(3))
    bench.driver.step([append(1, 1)])
    bench.driver.retire()
    bench.writer.sync()
    bench.driver.step([VoteRequest(OTHER, ME, Term(9), Index(9), Term(8), False)])
    assert bench.sent() == []
    assert not bench.writer.waiting
