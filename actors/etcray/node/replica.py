"""A member without its files and threads: the parts that think, put together.

Everything here runs on whichever thread calls it, reads only the clocks that it is given, and draws only
from the generator that it is given. `opened.OpenMember` gives it a disk, threads and Ray; a simulation
gives it a disk, a network and a clock of its own, and calls

    driver.tick()              what the raft timer does when something is due
    applier.apply_queued()     what the applier does
    leases.do_round()          what the lease keeper does, four times a second
    alarms.do_round()          what the flusher does, ten times a second
    peers.peer(id).take_now()  what a sender takes to its call; what returns goes to peers.take_reply()
    exchange.begin(bytes)      what a peer's call does
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count

from etcray.node.alarms import AlarmKeeper
from etcray.node.applier import Applier
from etcray.node.calls import Calls
from etcray.node.driver import Driver, RecordWriter
from etcray.node.envelope import Envelope, Fence, Wellbeing
from etcray.node.exchange import Exchange
from etcray.node.leases import LeaseKeeper
from etcray.node.peers import Peers, SenderThread, StartSender
from etcray.node.reports import PeerReports, StateHashes
from etcray.raft.config import RaftConfig
from etcray.raft.log import LogReader
from etcray.raft.messages import Message
from etcray.raft.raft import Raft
from etcray.raft.ready import SnapshotWanted
from etcray_storage.disk_space import RoomWatch
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.rows import ValueReader
from etcray_storage.types import (
    ClusterId,
    Entry,
    HardState,
    Incarnation,
    Index,
    Membership,
    SnapshotMeta,
)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a replica needs of the world."""

    clock: Callable[[], float]
    """Seconds, monotonic."""
    time_ms: Callable[[], int]
    """The wall clock for new entries, in milliseconds since 1970; must not go back."""
    rng: random.Random
    """Members that start together must not have the same seed: they would choose the same time-outs."""
    writer: RecordWriter
    tables: Callable[[], ValueReader]
    """Where rows of old revisions are found, at the moment of the call."""
    on_snapshot_wanted: Callable[[SnapshotWanted], None]
    on_snapshot: Callable[[SnapshotMeta], None]
    """The core accepted a snapshot: install it, then `driver.reset_log`."""
    hold_back: Callable[[list[Message]], AbstractContextManager[list[Message]]]
    """Of a peer's messages, those that may reach the core: not an install request without its file. The
    files of those that may are kept while the core looks at them."""
    on_failure: Callable[[BaseException], None]
    start_sender: StartSender = SenderThread
    mutex: AbstractContextManager[bool] | None = None
    """What guards the core, if it is to be more than a plain lock: it may do something when let go of."""


class Replica:
    """One incarnation of one member."""

    def __init__(
        self,
        cluster: ClusterId,
        incarnation: Incarnation,
        config: RaftConfig,
        log: LogReader,
        hard_state: HardState,
        membership: Membership,
        machine: StateMachine,
        surroundings: Surroundings,
    ) -> None:
        """`membership` and the machine are of the same index: what the tables hold."""
        self.member = config.member
        self.room = RoomWatch()
        self.hashes = StateHashes()
        self.hashes.applied(machine.applied_index, machine.state_hash)
        self.reports = PeerReports(self.hashes)
        self._told_removed = False
        clock, on_failure = surroundings.clock, surroundings.on_failure
        self.fence = Fence(
            cluster,
            config.member,
            incarnation,
            lambda member: self.applier.machine.is_removed(member),
            self._wellbeing,
        )
        self.applier = Applier(machine, self._applied, self._membership_applied, on_failure)
        self.driver = self._make_driver(config, log, hard_state, membership, surroundings)
        sequences = count(surroundings.rng.getrandbits(56) + 1)
        self.leases = LeaseKeeper(
            self.applier,
            self.driver,
            clock,
            surroundings.time_ms,
            extend_seconds=config.election_s,
            sequences=sequences,
            on_failure=on_failure,
        )
        self.alarms = AlarmKeeper(
            self.applier,
            self.driver,
            self.reports,
            self.member,
            lambda: self.room.is_low,
            clock,
            surroundings.time_ms,
            sequences,
        )
        self.peers = Peers(
            self.fence,
            self._replied,
            self.driver.peer_unreachable,
            on_failure,
            surroundings.start_sender,
        )
        self.exchange = Exchange(self.fence, self.peers, self.driver, self._heard, surroundings.hold_back)
        self.calls = Calls(
            self.member,
            self.applier,
            self.driver,
            self.leases,
            surroundings.tables,
            clock,
            surroundings.time_ms,
            config.election_s,
        )

    def _make_driver(
        self,
        config: RaftConfig,
        log: LogReader,
        hard_state: HardState,
        membership: Membership,
        surroundings: Surroundings,
    ) -> Driver:
        raft = Raft(
            config,
            log,
            hard_state,
            membership,
            self.applier.machine.applied_index,
            surroundings.rng,
            surroundings.clock(),
        )
        return Driver(
            raft,
            surroundings.writer,
            hard_state,
            self.applier,
            surroundings.clock,
            surroundings.on_snapshot_wanted,
            surroundings.on_snapshot,
            surroundings.on_failure,
            surroundings.mutex,
        )

    def begin(self) -> None:
        """Begin to take part; no thread is started."""
        self.driver.begin(self.peers)

    @property
    def is_removed(self) -> bool:
        """This member was removed from the cluster, and is of no further use."""
        return self._told_removed or self.applier.machine.is_removed(self.member)

    def adopt(self, machine: StateMachine) -> None:
        """Go on with the state of an installed snapshot. The caller holds `applier.state`."""
        self.applier.replace(machine)
        self.hashes.applied(machine.applied_index, machine.state_hash)
        for member in machine.removed_ids:
            self.peers.remove(member)

    def close(self) -> None:
        self.driver.close()
        self.peers.close()

    # --- what the parts tell each other ---------------------------------------------------------

    def _wellbeing(self) -> Wellbeing:
        return Wellbeing(*self.hashes.newest, self.room.is_low)

    def _applied(self, entry: Entry, machine: StateMachine) -> None:
        self.hashes.applied(entry.index, machine.state_hash)
        self.leases.applied(entry, machine)

    def _membership_applied(self, index: Index, membership: Membership) -> None:
        """First the core, which may have a last word for a member that goes; then its peer."""
        self.driver.membership_applied(index, membership)
        for member in self.applier.machine.removed_ids:
            self.peers.remove(member)
            self.reports.forget(member)

    def _heard(self, envelope: Envelope) -> None:
        if self.reports.heard(envelope.sender, envelope.applied, envelope.state_hash, envelope.low_on_space):
            self.alarms.do_round()

    def _replied(self, answer: Envelope) -> None:
        if answer.removed and not self.is_removed:
            self._told_removed = True
            self.driver.retire()
            return
        self._heard(answer)
        if answer.messages:
            self.driver.step(answer.messages)
