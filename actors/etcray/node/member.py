"""One member: recovers from its data directory, takes part in consensus, answers gateways.

No Ray here: `actor.MemberActor` gives a `Member` its calls and its peers. This is the outside of a
member, which exists before it is opened and after it is closed; `opened` is the inside.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from etcray.node.api import (
    DefragmentReply,
    HashKVReply,
    HistoryReply,
    HistoryRowsReply,
    KeepAliveReply,
    MemberStatus,
    Outcome,
    ProposeReply,
    ReadReply,
    TransferReply,
    WatchEvents,
    decode_hash_kv_request,
)
from etcray.node.opened import OpenMember
from etcray.node.peers import PeerChannel
from etcray.node.serving import listen_beyond, serve
from etcray.node.waiters import run
from etcray.spec import ClusterSpec
from etcray.transport.addresses import StreamAddress
from etcray.transport.server import StreamServer
from etcray_storage.disk_space import free_bytes
from etcray_storage.errors import EtcdError, OperatingError, StorageFullError
from etcray_storage.types import NOBODY, Index, MemberId, Membership, Term

SWITCH_INTERVAL_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another waits for it. Python's default of 5 ms is
longer than a whole round of consensus."""


class Member:
    """Everything that one process of the cluster's consensus does."""

    def __init__(
        self,
        cluster: ClusterSpec,
        name: str,
        ray_node: str = "",
        measure_room: Callable[[Path], int] = free_bytes,
    ) -> None:
        """`measure_room`: how many bytes may still be written to a directory's disk."""
        self.cluster = cluster
        self.spec = next(member for member in cluster.members if member.name == name)
        self._ray_node = ray_node
        self._measure_room = measure_room
        self._opened: OpenMember | None = None
        self._server: StreamServer | None = None
        """While it is open, if others reach it by streams."""
        self._opening = threading.Lock()
        self._hashing = threading.Lock()
        self._defragmenting = threading.Lock()

    # --- life ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Recover from disk and be ready to be connected. Idempotent.

        Raises OperatingError if the directory cannot be used; nothing is left open then.
        """
        with self._opening:
            if self._opened is None:
                sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
                opened = OpenMember(self.cluster, self.spec, self._ray_node, self._measure_room)
                self._opened = opened
                if opened.streams is not None:
                    self._server = serve(self, opened, opened.streams)

    def connect(self, channels: Mapping[int, PeerChannel]) -> None:
        """Learn how to call other members, also ones that are not members yet; again whenever one of
        them was created anew."""
        opened = self._require_open()
        for member, channel in channels.items():
            opened.replica.peers.connect(MemberId(member), channel)

    def connect_streams(self, addresses: Mapping[int, StreamAddress]) -> None:
        """Learn where other members listen, in place of `connect`."""
        opened = self._require_open()
        assert opened.streams is not None, "the transport of this cluster is not direct"
        assert self._server is not None, "an open member listens"
        opened.streams.set_addresses({MemberId(member): at for member, at in addresses.items()})
        if any(at.hostname != self._server.address.hostname for at in addresses.values()):
            listen_beyond(self, self._server)
        for member in map(MemberId, addresses):
            opened.replica.peers.connect(member, opened.streams.snapshot_channel(member))

    def member_died(self, member: MemberId) -> None:
        """Its process is gone, by whoever watches it: if it led, there is no point in waiting for
        its next heartbeat. A hint, not a fact: an election still needs a majority."""
        opened = self._opened
        if opened is not None and member != self.spec.id:
            opened.driver.peer_unreachable(member)

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                opened = self._opened
                opened.hand_over()  # the successor's votes and appends still have to be answered
                if self._server is not None:
                    self._server.close()
                self._opened = None
                opened.close()

    def _require_open(self) -> OpenMember:
        opened = self._opened
        if opened is None:
            raise RuntimeError(f"member {self.spec.name} is not open")
        return opened

    @contextmanager
    def _in_use(self) -> Generator[OpenMember]:
        """The open member, for one call. Damage or a failing disk that a call meets ends the process."""
        opened = self._require_open()
        try:
            yield opened
        except (OperatingError, OSError) as e:
            opened.fail(e)
            raise

    # --- calls of peers -----------------------------------------------------------------------

    def exchange(self, payload: bytes) -> bytes:
        """Take a peer's messages; the answers come back once their promises are durable."""
        return self._require_open().replica.exchange.begin(payload).wait()

    def receive_snapshot_chunk(self, payload: bytes) -> bytes:
        with self._in_use() as opened:
            return opened.installer.receive(payload)

    # --- calls of gateways --------------------------------------------------------------------

    def propose(self, encoded_batch: bytes) -> ProposeReply:
        """Replicate a batch and return its answers once they are applied here; see `calls`.

        Raises msgspec.DecodeError for bytes that are no batch; nothing has entered the log then.
        """
        return run(self._require_open().replica.calls.propose(encoded_batch))

    def read(self, encoded_request: bytes) -> ReadReply:
        """Answer reads from the state machine, after a ReadIndex round if they ask for it."""
        with self._in_use() as opened:
            return run(opened.replica.calls.read(encoded_request))

    def keep_alive(self, encoded_request: bytes) -> KeepAliveReply:
        """Renew leases, once a majority has confirmed that this member leads."""
        return run(self._require_open().replica.calls.keep_alive(encoded_request))

    def watch(self, encoded_poll: bytes) -> WatchEvents:
        """Wait for what changes after a revision; see `watching`."""
        return self._require_open().watching.watch(encoded_poll)

    def history(self, encoded_request: bytes) -> HistoryReply:
        """Read what changed in the past; see `history`."""
        with self._in_use() as opened:
            return opened.watching.history(encoded_request)

    def transfer_leadership(self, encoded_request: bytes) -> TransferReply:
        """Hand the leadership to another voter; answered once it leads, or has not managed to."""
        return run(self._require_open().replica.calls.transfer_leadership(encoded_request))

    def hash_kv(self, encoded_request: bytes) -> HashKVReply:
        """Hash the history of this very member's keys, as stored: about a second a million rows."""
        request = decode_hash_kv_request(encoded_request)
        with self._in_use() as opened:
            term, machine = opened.driver.soft_state.term, opened.applier.machine
            if not self._hashing.acquire(blocking=False):
                return HashKVReply(Outcome.BUSY, self.spec.id, term, 0, 0, 0, 0, 0)
            try:
                opened.flush()
                found = opened.tables.hash_kv(request.revision)
            except EtcdError as e:
                about = (machine.revision, machine.compact_revision, 0, 0, e.number)
                return HashKVReply(Outcome.ANSWERED, self.spec.id, term, *about)
            finally:
                self._hashing.release()
            if found is None:  # a snapshot is being installed
                return HashKVReply(Outcome.NOT_LEADER, self.spec.id, term, 0, 0, 0, 0, 0)
            about = (machine.revision, found.compact_revision, found.hash, found.revision, 0)
            return HashKVReply(Outcome.ANSWERED, self.spec.id, term, *about)

    def defragment(self, _request: bytes = b"") -> DefragmentReply:
        """Rewrite the tables so that they take no more room than they need. Serves meanwhile."""
        with self._in_use() as opened:
            outcome = Outcome.BUSY
            if self._defragmenting.acquire(blocking=False):
                try:
                    opened.flush()
                    opened.tables.maintain(force=True)
                    outcome = Outcome.ANSWERED
                except StorageFullError:
                    opened.disk_is_full()
                finally:
                    self._defragmenting.release()
            term, revision = opened.driver.soft_state.term, opened.applier.machine.revision
            return DefragmentReply(outcome, self.spec.id, term, revision)

    def history_rows(self, encoded_request: bytes) -> HistoryRowsReply:
        """Hand out all revisions to a copy of them; see `row_feed`."""
        with self._in_use() as opened:
            return opened.row_feed.rows(encoded_request)

    def status(self) -> MemberStatus:
        """A copy of the state; answered also while the member is not open yet."""
        opened = self._opened
        if opened is None:
            return _closed_status(self)
        status = opened.status()
        if self._server is not None:
            return msgspec.structs.replace(status, stream=self._server.address)
        return status


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
