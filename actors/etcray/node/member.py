"""One member: recovers from its data directory, takes part in consensus, answers gateways.

No Ray here: `actor.MemberActor` gives a `Member` its calls and its peers. See the package's essay for
how the parts work together; this module only puts them together and takes them apart again.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from etcray.node.api import (
    HistoryReply,
    KeepAliveReply,
    MemberStatus,
    Outcome,
    ProposeReply,
    ReadReply,
    ReadRequest,
    WatchEvents,
    decode_keep_alive_request,
    decode_read_request,
)
from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.envelope import Fence, decode_envelope, encode
from etcray.node.flusher import Flusher, Maintainer
from etcray.node.leases import LeaseKeeper
from etcray.node.peers import PeerChannel, Peers
from etcray.node.recovery import Recovered, recover
from etcray.node.snapshots import SnapshotInstaller, SnapshotSender
from etcray.node.watching import WatchServer
from etcray.raft.config import RaftConfig
from etcray.raft.errors import NotLeaderError, ProposalDroppedError
from etcray.raft.raft import Raft
from etcray.spec import ClusterSpec
from etcray_storage.commands import BatchAnswer, Payload, ReadKind, decode_batch, encode_payload
from etcray_storage.data_directory import DataDirectory
from etcray_storage.limits import LOG_CATCH_UP_BYTES, LOG_CATCH_UP_ENTRIES
from etcray_storage.log import LogWriter
from etcray_storage.types import NOBODY, Index, MemberId, Membership, Term

ANSWER_TIMEOUT_SECONDS: Final = 10.0
"""Longer than a gateway waits (7 s): the call ends in any case, so abandoned calls do not pile up."""

REPLY_WAIT_SECONDS: Final = 0.2
"""How long a peer's call waits for the sync that releases its answer. What comes later goes out in
a call of our own."""

SWITCH_INTERVAL_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another waits for it. Python's default of 5 ms is
longer than a whole round of consensus."""

EXIT_FATAL: Final = 70


class Member:
    """Everything that one process of the cluster's consensus does."""

    def __init__(self, cluster: ClusterSpec, name: str, ray_node: str = "") -> None:
        self.cluster = cluster
        self.spec = next(member for member in cluster.members if member.name == name)
        self._ray_node = ray_node
        self._opened: OpenMember | None = None
        self._opening = threading.Lock()

    # --- life ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Recover from disk and be ready to be connected. Idempotent.

        Raises OperatingError if the directory cannot be used; nothing is left open then.
        """
        with self._opening:
            if self._opened is None:
                sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
                self._opened = OpenMember(self)

    def connect(self, channels: Mapping[int, PeerChannel]) -> None:
        """Learn how to call the peers; again whenever one of them was created anew."""
        opened = self._require_open()
        for member, channel in channels.items():
            if member != self.spec.id:
                opened.peers.connect(MemberId(member), channel)

    def member_died(self, member: MemberId) -> None:
        """Its process is gone, by whoever watches it: if it led, there is no point in waiting for
        its next heartbeat. A hint, not a fact: an election still needs a majority."""
        opened = self._opened
        if opened is not None and member != self.spec.id:
            opened.driver.peer_unreachable(member)

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                opened, self._opened = self._opened, None
                opened.close()

    def _require_open(self) -> OpenMember:
        opened = self._opened
        if opened is None:
            raise RuntimeError(f"member {self.spec.name} is not open")
        return opened

    # --- calls of peers -----------------------------------------------------------------------

    def exchange(self, payload: bytes) -> bytes:
        """Take a peer's messages; the answers come back once their promises are durable."""
        opened = self._require_open()
        envelope = decode_envelope(payload)
        if not opened.fence.admits(envelope):
            return encode(opened.fence.envelope(envelope.sender, []))
        messages = opened.installer.hold_back_unready(envelope.messages)
        slot = opened.peers.open_slot(envelope)
        if slot is None:
            return encode(opened.fence.envelope(envelope.sender, []))
        if opened.driver.step(messages):
            slot.done.acquire(timeout=REPLY_WAIT_SECONDS)
        return opened.peers.close_slot(envelope.sender, slot)

    def receive_snapshot_chunk(self, payload: bytes) -> bytes:
        return self._require_open().installer.receive(payload)

    # --- calls of gateways --------------------------------------------------------------------

    def propose(self, encoded_batch: bytes) -> ProposeReply:
        """Replicate a batch and return its answers once they are applied here.

        Raises msgspec.DecodeError for bytes that are no batch; nothing has entered the log then.
        """
        opened = self._require_open()
        batch = decode_batch(encoded_batch)
        batch_id = (batch.session, batch.sequence)
        waiter = opened.applier.expect(batch_id)
        try:
            opened.driver.propose(encode_payload(Payload(opened.time_ms(), [encoded_batch])))
        except NotLeaderError as e:
            opened.applier.forget(batch_id, waiter)
            return self._propose_reply(opened, Outcome.NOT_LEADER, leader=e.leader)
        except ProposalDroppedError:
            opened.applier.forget(batch_id, waiter)
            return self._propose_reply(opened, Outcome.BUSY)
        answer = waiter.wait(ANSWER_TIMEOUT_SECONDS)
        if answer is None:
            opened.applier.forget(batch_id, waiter)
            return self._propose_reply(opened, Outcome.NOT_LEADER)
        return self._propose_reply(opened, Outcome.ANSWERED, answer=answer)

    def _propose_reply(
        self,
        opened: OpenMember,
        outcome: Outcome,
        *,
        leader: MemberId | None = None,
        answer: BatchAnswer | None = None,
    ) -> ProposeReply:
        state = opened.driver.soft_state
        known = state.leader if leader is None else leader
        return ProposeReply(outcome, known, state.term, self.spec.id, answer)

    def read(self, encoded_request: bytes) -> ReadReply:
        """Answer reads from the state machine, after a ReadIndex round if they ask for it."""
        opened = self._require_open()
        request = decode_read_request(encoded_request)
        if request.linearizable:
            try:
                waiter = opened.driver.read_index()
            except NotLeaderError as e:
                return self._no_reads(opened, e.leader)
            if waiter.wait(ANSWER_TIMEOUT_SECONDS) is None:
                return self._no_reads(opened, opened.driver.soft_state.leader)
        return self._answer_reads(opened, request)

    def _answer_reads(self, opened: OpenMember, request: ReadRequest) -> ReadReply:
        answers = opened.applier.read(request.kinds, request.requests, opened.tables)
        if request.linearizable and ReadKind.LEASE_TIME_TO_LIVE in request.kinds:
            filled = opened.leases.fill_in_remaining(request.kinds, answers)
            if filled is None:
                return self._no_reads(opened, opened.driver.soft_state.leader)
            answers = filled
        state = opened.driver.soft_state
        return ReadReply(
            Outcome.ANSWERED,
            state.leader,
            state.term,
            self.spec.id,
            [answer.revision for answer in answers],
            [answer.error for answer in answers],
            [answer.body for answer in answers],
        )

    def keep_alive(self, encoded_request: bytes) -> KeepAliveReply:
        """Renew leases, once a majority has confirmed that this member leads."""
        opened = self._require_open()
        request = decode_keep_alive_request(encoded_request)
        try:
            waiter = opened.driver.read_index()
        except NotLeaderError as e:
            return self._keep_alive_reply(opened, e.leader)
        if waiter.wait(ANSWER_TIMEOUT_SECONDS) is None:
            return self._keep_alive_reply(opened, opened.driver.soft_state.leader)
        with opened.applier.state:  # nothing is half applied: the leases are those of this revision
            revision = opened.applier.machine.revision
        ttls = opened.leases.renew(request.leases, ANSWER_TIMEOUT_SECONDS)
        return self._keep_alive_reply(opened, opened.driver.soft_state.leader, revision, ttls)

    def _keep_alive_reply(
        self, opened: OpenMember, leader: MemberId, revision: int = 0, ttls: list[int] | None = None
    ) -> KeepAliveReply:
        term = opened.driver.soft_state.term
        if ttls is None:
            return KeepAliveReply(Outcome.NOT_LEADER, leader, term, self.spec.id, 0, [])
        return KeepAliveReply(Outcome.ANSWERED, leader, term, self.spec.id, revision, ttls)

    def _no_reads(self, opened: OpenMember, leader: MemberId) -> ReadReply:
        term = opened.driver.soft_state.term
        return ReadReply(Outcome.NOT_LEADER, leader, term, self.spec.id, [], [], [])

    def watch(self, encoded_poll: bytes) -> WatchEvents:
        """Wait for what changes after a revision; see `watching`."""
        return self._require_open().watching.watch(encoded_poll)

    def history(self, encoded_request: bytes) -> HistoryReply:
        """Read what changed in the past; see `history`."""
        return self._require_open().watching.history(encoded_request)

    def status(self) -> MemberStatus:
        """A copy of the state; answered also while the member is not open yet."""
        opened = self._opened
        if opened is None:
            return _closed_status(self)
        return opened.status()


class OpenMember:
    """What exists between `open` and `close`: every thread, file and lock of the member."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.cluster = member.cluster
        cluster, spec = member.cluster, member.spec
        self.directory = DataDirectory.open(
            Path(spec.data_directory),
            cluster.cluster_id,
            spec.id,
            cluster.name,
            spec.name,
            must_exist=cluster.formed,
        )
        try:
            recovered = recover(self.directory, cluster)
        except BaseException:
            self.directory.close()
            raise
        self._last_time_ms = 0
        self._time_lock = threading.Lock()
        self.tables = recovered.tables
        """Replaced when a snapshot is installed, under `flushing` and `Applier.state`."""
        self.log = recovered.log
        self.fence = Fence(cluster.cluster_id, spec.id, self.directory.incarnation)
        self.applier = Applier(
            recovered.machine, lambda entry, machine: self.leases.applied(entry, machine), self.fail
        )
        self.writer = LogWriter(recovered.log, self.fail)
        self.maintainer = Maintainer(lambda: self.tables.maintain(), self.fail)
        self.flusher = Flusher(self.flush, self.log.maintain, self.fail)
        self.flushing = threading.Lock()
        self.driver = self._make_driver(recovered)
        self.leases = LeaseKeeper(
            self.applier,
            self.driver,
            time.monotonic,
            self.time_ms,
            extend_seconds=cluster.timing.election_ms / 1000,
            on_failure=self.fail,
        )
        self.peers = Peers(
            self.fence,
            [peer.id for peer in cluster.members if peer.id != spec.id],
            on_messages=self.driver.step,
            on_unreachable=self.driver.peer_unreachable,
            on_failure=self.fail,
        )
        self.sender = SnapshotSender(self)
        self.installer = SnapshotInstaller(self)
        self.watching = WatchServer(spec.id, self, self.driver)
        self.commit_at_start = recovered.commit_index
        self.applier.start()
        self.flusher.start()
        self.maintainer.start()
        self.driver.start(self.peers)
        self.leases.start()

    def _make_driver(self, recovered: Recovered) -> Driver:
        cluster, spec = self.member.cluster, self.member.spec
        config = RaftConfig(
            member=spec.id,
            election_s=cluster.timing.election_ms / 1000,
            heartbeat_s=cluster.timing.heartbeat_ms / 1000,
        )
        raft = Raft(
            config,
            recovered.log,
            recovered.log.hard_state,
            recovered.tables.membership,
            recovered.tables.applied_index,
            # Seeded from the system: members that start together must not choose the same time-outs.
            random.Random(os.urandom(16)),
            time.monotonic(),
        )
        return Driver(
            raft,
            self.writer,
            recovered.log.hard_state,
            self.applier,
            time.monotonic,
            on_snapshot_wanted=lambda wanted: self.sender.want(wanted),
            on_snapshot=lambda meta: self.installer.want(meta),
            on_failure=self.fail,
        )

    def time_ms(self) -> int:
        """The wall clock for new entries; never goes back within this process. (Across leaders the
        state machine keeps it monotonic, because it sees the entries of all of them.)"""
        with self._time_lock:
            self._last_time_ms = max(self._last_time_ms, time.time_ns() // 1_000_000)
            return self._last_time_ms

    def flush(self) -> None:
        """Write what was applied since the last flush, then let go of the log that it covers."""
        with self.flushing:
            with self.applier.state:
                flush = self.applier.machine.take_flush()
                if flush is not None:
                    self.tables.stage(flush)
            self.tables.write()  # also what a read of history has staged
            through = self._compactable(self.tables.applied_index)
            # The tables of a snapshot are ahead of the log until it is reset to them.
            if self.log.base_index < through <= self.log.last_index:
                self.log.compact(through)
                self.driver.log_compacted_to(through)

    def _compactable(self, stored: Index) -> Index:
        """Up to where the log may forget: what the tables hold, less what lagging peers may want."""
        by_bytes = self.log.first_within(LOG_CATCH_UP_BYTES) - 1
        return Index(min(stored, max(stored - LOG_CATCH_UP_ENTRIES, by_bytes)))

    def fail(self, error: BaseException) -> None:
        """End the process: a member whose memory and disk may disagree must not say another word.
        The supervisor starts it again on its data, where recovery decides what is true."""
        text = "".join(traceback.format_exception(error))
        try:
            (self.directory.path / "last-failure.txt").write_text(text)
            sys.stderr.write(text)
            sys.stderr.flush()
        finally:
            os._exit(EXIT_FATAL)

    def status(self) -> MemberStatus:
        raft = self.driver.status()
        machine = self.applier.machine
        return MemberStatus(
            member=self.member.spec.id,
            name=self.member.spec.name,
            role=str(raft.role),
            term=raft.term,
            leader=raft.leader,
            last_index=raft.last_index,
            commit_index=raft.commit,
            applied_index=machine.applied_index,
            revision=machine.revision,
            compact_revision=machine.compact_revision,
            membership=self.tables.membership,
            incarnation=self.directory.incarnation,
            process_id=os.getpid(),
            ray_node=self.member._ray_node,
            data_directory=self.member.spec.data_directory,
            size_bytes=self.tables.size_bytes,
            size_in_use_bytes=self.tables.size_in_use_bytes,
            ready=machine.applied_index >= self.commit_at_start,
        )

    def close(self) -> None:
        """Stop taking part, then write and close; the last flush covers everything applied."""
        self.leases.close()
        self.driver.close()
        self.peers.close()
        self.maintainer.close()  # a snapshot that is being installed still needs the writer
        self.writer.close()
        self.applier.close()
        self.flusher.close()
        self.log.close()
        self.tables.close()
        self.directory.close()


def _closed_status(member: Member) -> MemberStatus:
    return MemberStatus(
        member=member.spec.id,
        name=member.spec.name,
        role="closed",
        term=Term(0),
        leader=NOBODY,
        last_index=Index(0),
        commit_index=Index(0),
        applied_index=Index(0),
        revision=0,
        compact_revision=-1,
        membership=Membership(),
        incarnation=0,
        process_id=os.getpid(),
        ray_node=member._ray_node,
        data_directory=member.spec.data_directory,
        size_bytes=0,
        size_in_use_bytes=0,
        ready=False,
    )
