"""What exists between `open` and `close` of a member: its replica, and every file and thread it has."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from etcray.node.api import MemberStatus, PeerView
from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.flusher import Flusher, Maintainer
from etcray.node.peers import SenderThread
from etcray.node.recovery import Recovered, recover
from etcray.node.replica import Replica, Surroundings
from etcray.node.row_feed import RowFeed
from etcray.node.snapshots import SnapshotInstaller, SnapshotSender
from etcray.node.waiters import run
from etcray.node.watching import WatchServer
from etcray.raft.config import RaftConfig
from etcray.spec import ClusterSpec, MemberSpec
from etcray.transport.handshake import credentials_of
from etcray.transport.peer_stream import PeerStreams
from etcray.tuning import Transport
from etcray_storage.data_directory import DataDirectory
from etcray_storage.disk_space import Ballast, free_bytes
from etcray_storage.errors import OperatingError, StorageCorruptError, StorageFullError
from etcray_storage.limits import (
    DISK_LOOK_SECONDS,
    LOG_CATCH_UP_BYTES,
    LOG_CATCH_UP_ENTRIES,
    VERIFY_STEP_SECONDS,
)
from etcray_storage.log import LogWriter
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.mvcc.tables import Tables
from etcray_storage.mvcc.verification import Verifier
from etcray_storage.proto.rpc_pb2 import CORRUPT
from etcray_storage.types import Index

EXIT_FATAL: Final = 70


class OpenMember:
    """One incarnation of a member on its directory."""

    def __init__(
        self,
        cluster: ClusterSpec,
        spec: MemberSpec,
        ray_node: str,
        measure_room: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Recover from disk, and begin to take part."""
        self.cluster = cluster
        self._spec = spec
        self._ray_node = ray_node
        self._measure_room = measure_room
        self.directory = DataDirectory.open(
            Path(spec.data_directory),
            cluster.cluster_id,
            spec.id,
            cluster.name,
            spec.name,
            must_exist=cluster.formed and not spec.joining,
        )
        try:
            recovered = recover(self.directory, cluster)
        except BaseException:
            self.directory.close()
            raise
        self._last_time_ms = 0
        self._time_lock = threading.Lock()
        self._ballast = Ballast(self.directory.path)
        self._look_at = 0.0
        """When to measure the disk's room again."""
        self.tables = recovered.tables
        """Replaced when a snapshot is installed, under `flushing` and `Applier.state`."""
        self.log = recovered.log
        self._log_verifier = self.log.verifier()
        self._tables_verifier: tuple[Tables, Verifier] | None = None
        """With the tables that it checks, because an installed snapshot brings others."""
        self._verify_at = 0.0
        """When to take the next step of the check,"""
        self._verifies_tables = False
        """and what the last one was of."""
        self.writer = LogWriter(self.log, self.fail, self.directory.check_owned, self.disk_is_full)
        self.maintainer = Maintainer(self._maintain, self.fail)
        self.flusher = Flusher(self.flush, self._look, self.fail)
        self.flushing = threading.Lock()
        self.sender = SnapshotSender(self)
        self.installer = SnapshotInstaller(self)
        is_direct = cluster.tuning.transport is Transport.DIRECT
        self.streams = PeerStreams(credentials_of(cluster)) if is_direct else None
        """To the peers, unless these are called by way of Ray."""
        self.replica = self._make_replica(recovered)
        self.watching = WatchServer(spec.id, self, self.driver)
        self.row_feed = RowFeed(spec.id, self, self.driver)
        self.commit_at_start = recovered.commit_index
        self.applier.start()
        self.flusher.start()
        self.maintainer.start()
        self.replica.begin()
        self.driver.start_timer()
        self.replica.leases.start()

    def _make_replica(self, recovered: Recovered) -> Replica:
        timing = self.cluster.timing
        config = RaftConfig(
            member=self._spec.id,
            election_s=timing.election_ms / 1000,
            heartbeat_s=timing.heartbeat_ms / 1000,
            append_bytes_max=self.cluster.tuning.append_bytes,
            appends_in_flight_max=self.cluster.tuning.appends_in_flight,
        )
        surroundings = Surroundings(
            clock=time.monotonic,
            time_ms=self.time_ms,
            rng=random.Random(os.urandom(16)),
            writer=self.writer,
            tables=lambda: self.tables,
            on_snapshot_wanted=self.sender.want,
            on_snapshot=self.installer.want,
            hold_back=self.installer.hold_back_unready,
            on_failure=self.fail,
            start_sender=SenderThread if self.streams is None else self.streams.start,
            mutex=None if self.streams is None else self.streams.mutex,
        )
        return Replica(
            self.cluster.cluster_id,
            self.directory.incarnation,
            config,
            recovered.log,
            recovered.log.hard_state,
            recovered.tables.membership,
            recovered.machine,
            surroundings,
        )

    @property
    def applier(self) -> Applier:
        return self.replica.applier

    @property
    def driver(self) -> Driver:
        return self.replica.driver

    def time_ms(self) -> int:
        """The wall clock for new entries; never goes back within this process. (Across leaders the
        state machine keeps it monotonic, because it sees the entries of all of them.)"""
        with self._time_lock:
            self._last_time_ms = max(self._last_time_ms, time.time_ns() // 1_000_000)
            return self._last_time_ms

    # --- background work ------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was applied since the last flush, then let go of the log that it covers. On a full
        disk it stays staged, for a later call: the log has it."""
        with self.flushing:
            with self.applier.state:
                flush = self.applier.machine.take_flush()
                if flush is not None:
                    self.tables.stage(flush)
            try:
                self.tables.write()  # also what a read of history has staged
            except StorageFullError:
                self.disk_is_full()
                return
            settled = self.applier.settled_index
            through = self._compactable(min(self.tables.applied_index, settled))
            # The state of a snapshot is ahead of the core and of the log until both are reset to it, and a
            # log that reaches as far may hold other entries there.
            if self.log.base_index < through and settled <= self.driver.applied_index:
                # The core first: it must not look for an entry that the log has just let go of.
                self.driver.log_compacted_to(through)
                self.log.compact(through)

    def _compactable(self, stored: Index) -> Index:
        """Up to where the log may forget: what the tables hold, less what lagging peers may want."""
        by_bytes = self.log.first_within(LOG_CATCH_UP_BYTES) - 1
        return Index(min(stored, max(stored - LOG_CATCH_UP_ENTRIES, by_bytes)))

    def _look(self) -> None:
        """What is short and has to be done often. First of all: a directory that another one has replaced
        belongs to somebody else, and nothing may be created in it."""
        self.directory.check_owned()
        try:
            self.log.maintain()
        except StorageFullError:
            self.disk_is_full()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + DISK_LOOK_SECONDS
            if not self.replica.room.look(self._measure_room(self.directory.path)):
                self._ballast.make()
        self.replica.alarms.do_round()

    def disk_is_full(self) -> bool:
        """Something found no room. Give up the reserve, and say so in the next envelope. True if there
        was a reserve: trying again makes sense then."""
        self.replica.room.look(0)
        return self._ballast.release()

    def _maintain(self) -> None:
        """What may take long, or can wait: run when no other job does. One piece of the check at a time,
        so that it never takes the disk from anybody: all of it is read again and again, slowly."""
        try:
            self.tables.maintain()
        except StorageFullError:
            self.disk_is_full()
        now = time.monotonic()
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_STEP_SECONDS
            self._verifies_tables = not self._verifies_tables
            if self._verifies_tables:
                self._tables_verifier_now().step()
            else:
                self._log_verifier.step()

    def _tables_verifier_now(self) -> Verifier:
        tables = self.tables
        if self._tables_verifier is None or self._tables_verifier[0] is not tables:
            self._tables_verifier = (tables, tables.verifier(self._find_difference))
        return self._tables_verifier[1]

    def _find_difference(self, rows: Sequence[RevisionRow]) -> RevisionRow | None:
        with self.applier.state:
            return self.applier.machine.find_difference(rows)

    def fail(self, error: BaseException) -> None:
        """End the process: a member whose memory and disk may disagree must not say another word.
        The supervisor starts it again on its data, where recovery decides what is true; a directory
        in which damage was found is put into quarantine first."""
        text = "".join(traceback.format_exception(error))
        try:
            self.directory.check_owned()  # or the note would go to somebody else's
            if isinstance(error, StorageCorruptError):
                self.directory.quarantine(str(error))
            (self.directory.path / "last-failure.txt").write_text(text)
        except (OSError, OperatingError) as e:
            text += f"(and no note of it was left in {self.directory.path}: {e})\n"
        finally:
            sys.stderr.write(text)
            sys.stderr.flush()
            os._exit(EXIT_FATAL)

    # --- status and end -------------------------------------------------------------------------

    def status(self) -> MemberStatus:
        raft = self.driver.status()
        with self.applier.state:
            machine = self.applier.machine
            applied_index, state_hash = machine.applied_index, machine.state_hash
        now = time.monotonic()
        return MemberStatus(
            member=self._spec.id,
            name=self._spec.name,
            role=str(self.driver.soft_state.role),
            term=raft.term,
            leader=self.driver.soft_state.leader,
            last_index=raft.last_index,
            commit_index=raft.commit,
            applied_index=applied_index,
            revision=machine.revision,
            compact_revision=machine.compact_revision,
            membership=machine.membership,
            members=machine.members,
            removed_ids=tuple(sorted(machine.removed_ids)),
            alarms=machine.alarms,
            is_learner=self._spec.id in machine.membership.learners,
            removed=self.replica.is_removed,
            corrupt=(self._spec.id, CORRUPT) in machine.alarms,
            state_hash=state_hash,
            transfer_target=raft.transfer_target,
            peers=tuple(
                PeerView(peer.member, peer.match_index, max(0.0, now - peer.heard_at), peer.is_learner)
                for peer in raft.peers
            ),
            free_bytes=self.replica.room.free_bytes,
            low_on_space=self.replica.room.is_low,
            incarnation=self.directory.incarnation,
            process_id=os.getpid(),
            ray_node=self._ray_node,
            data_directory=self._spec.data_directory,
            size_bytes=self.tables.size_bytes,
            size_in_use_bytes=self.tables.size_in_use_bytes,
            ready=applied_index >= self.commit_at_start,
        )

    def hand_over(self) -> None:
        """If this member leads, let another one lead, so that nobody has to wait for an election. The
        member's calls must still be answered meanwhile. Bounded."""
        run(self.replica.calls.hand_over())

    def close(self) -> None:
        """Stop taking part, then write and close; the last flush covers everything applied."""
        self.replica.leases.close()
        self.replica.close()
        self.maintainer.close()  # a snapshot that is being installed still needs the writer
        if self.streams is not None:
            self.streams.close()
        self.writer.close()
        self.applier.close()
        self.flusher.close()
        self.log.close()
        self.tables.close()
        self.directory.close()
