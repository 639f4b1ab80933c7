"""Snapshots: how a member that lags behind the leader's log comes back.

The leader's tables *are* the snapshot: exporting them gives one file, which holds everything up to
the tables' applied index. It travels in pieces, is verified as a whole, and replaces the recipient's
tables in one rename; then its log starts anew behind it (Raft paper, section 7).

    leader's maintainer          recipient's Ray threads           recipient's maintainer
    export a file
    chunk, chunk, chunk  ----->  append to a partial file
    last chunk           ----->  verify size and sha256
    InstallSnapshot      ----->  core: is it newer than mine?  -->  install, load, reset the log
                         <-----------  AppendResponse: I have everything up to its index  <---'

The request reaches the core only once the file is there and verified, so the core never waits for a
file that does not come. If a leader falls silent in the middle, the partial file stays until a chunk
of another snapshot replaces it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from etcray.node.envelope import (
    SnapshotChunk,
    SnapshotChunkReply,
    decode_snapshot_chunk,
    decode_snapshot_chunk_reply,
    encode,
)
from etcray.node.peers import PeerUnreachableError, SnapshotChannel
from etcray.node.recovery import machine_of
from etcray.raft.messages import InstallSnapshotRequest, Message
from etcray.raft.ready import SnapshotWanted
from etcray_storage.errors import StorageCorruptError, StorageFullError
from etcray_storage.limits import SNAPSHOT_CHUNK_BYTES
from etcray_storage.mvcc.install import prepare_install
from etcray_storage.mvcc.snapshot import SnapshotFile, SnapshotReceiver
from etcray_storage.mvcc.tables import Tables
from etcray_storage.types import MemberId, SnapshotMeta

if TYPE_CHECKING:
    from etcray.node.opened import OpenMember

REFUSED = -1
"""As a chunk's reply: the recipient does not listen to this sender, the file came out damaged, or there
is no room for it."""


class SnapshotSender:
    """Sends the newest state to peers whose entries are no longer in the log."""

    def __init__(self, member: OpenMember) -> None:
        self._member = member
        self._lock = threading.Lock()
        self._sending: set[MemberId] = set()
        """Peers that a job is queued or running for: consensus asks again while it waits."""

    def want(self, wanted: SnapshotWanted) -> None:
        """Called under the driver's mutex; the work is the maintainer's."""
        with self._lock:
            if wanted.member in self._sending:
                return
            if self._member.maintainer.submit(lambda: self._run(wanted)):
                self._sending.add(wanted.member)

    def _run(self, wanted: SnapshotWanted) -> None:
        member = self._member
        index, ok = member.tables.applied_index, False
        try:
            file = member.tables.export_snapshot(member.directory.path / "outgoing")
            try:
                index, ok = file.meta.index, self._send(wanted, file)
            finally:
                file.path.unlink(missing_ok=True)
        except StorageFullError:
            member.disk_is_full()  # consensus asks again; there may be room then
        finally:
            with self._lock:
                self._sending.discard(wanted.member)
        member.replica.driver.snapshot_sent(wanted.member, index, ok)

    def _send(self, wanted: SnapshotWanted, file: SnapshotFile) -> bool:
        channel = self._member.replica.peers.channel(wanted.member)
        if channel is None:
            return False
        try:
            complete = self._send_chunks(channel, wanted.member, file)
        except PeerUnreachableError:
            return False
        if complete:
            request = InstallSnapshotRequest(
                sender=self._member.replica.fence.member,
                recipient=wanted.member,
                term=wanted.term,
                meta=file.meta,
            )
            self._member.replica.peers.send(request)
        return complete

    def _send_chunks(self, channel: SnapshotChannel, recipient: MemberId, file: SnapshotFile) -> bool:
        fence = self._member.replica.fence
        offset = 0
        with file.path.open("rb") as source:
            while offset < file.size_bytes:
                source.seek(offset)
                chunk = SnapshotChunk(
                    fence.cluster,
                    fence.member,
                    fence.incarnation,
                    recipient,
                    file.meta,
                    file.sha256,
                    file.size_bytes,
                    offset,
                    source.read(SNAPSHOT_CHUNK_BYTES),
                )
                reply = decode_snapshot_chunk_reply(channel.snapshot_chunk(encode(chunk)))
                if reply.next_offset == offset or not 0 <= reply.next_offset <= file.size_bytes:
                    return False
                offset = reply.next_offset
        return True


class SnapshotInstaller:
    """Receives a snapshot, and takes it over when the core says so."""

    def __init__(self, member: OpenMember) -> None:
        self._member = member
        self._receiver = SnapshotReceiver(member.directory.path / "incoming")
        self._lock = threading.Lock()
        self._verified: dict[SnapshotMeta, tuple[Path, str]] = {}
        """What may be installed: the file and its SHA-256. At most one."""
        self._offers = 0
        """Calls in which the core is being asked to install it. No chunk of another one may take its place
        meanwhile, nor while it is accepted: the core cannot take its yes back."""
        self._accepted: SnapshotMeta | None = None
        """Set while the offer lasts in which the core accepted it, until it is installed."""

    def receive(self, payload: bytes) -> bytes:
        """Take one chunk; the reply says where to go on. Runs on the caller's Ray thread."""
        chunk = decode_snapshot_chunk(payload)
        if not self._member.replica.fence.admits(chunk):
            return encode(SnapshotChunkReply(REFUSED))
        with self._lock:
            return encode(SnapshotChunkReply(self._take(chunk)))

    def _take(self, chunk: SnapshotChunk) -> int:
        if self._offers or self._accepted is not None:
            return REFUSED
        try:
            offset = self._receiver.accept(chunk.sha256, chunk.size_bytes, chunk.offset, chunk.data)
            if offset == chunk.size_bytes:
                path = self._receiver.finish(chunk.sha256, chunk.size_bytes)
                self._verified = {chunk.meta: (path, chunk.sha256)}
        except StorageCorruptError:
            return REFUSED
        except StorageFullError:
            self._member.disk_is_full()
            return REFUSED
        return offset

    @contextmanager
    def hold_back_unready(self, messages: list[Message]) -> Iterator[list[Message]]:
        """Leave out install requests whose file is not here and verified. The core has to be given the
        rest before this ends."""
        if not any(isinstance(message, InstallSnapshotRequest) for message in messages):
            yield messages
            return
        with self._lock:
            self._offers += 1
            offered = [
                message
                for message in messages
                if not isinstance(message, InstallSnapshotRequest) or message.meta in self._verified
            ]
        try:
            yield offered
        finally:
            with self._lock:
                self._offers -= 1

    def want(self, meta: SnapshotMeta) -> None:
        """The core has accepted the snapshot. Called under the driver's mutex."""
        self._accepted = meta
        submitted = self._member.maintainer.submit(lambda: self._install(meta))
        assert submitted, "the maintainer has no room for an accepted snapshot"

    def _install(self, meta: SnapshotMeta) -> None:
        """Replace tables, state machine and log. In this order, because a start recognises tables
        that are ahead of their log, and finishes the reset then."""
        member = self._member
        with self._lock:
            path, sha256 = self._verified[meta]
            directory = member.directory.path / "tables"
            prepared = prepare_install(directory, path, sha256)
            with member.flushing, member.applier.state:
                member.tables.close()
                member.tables = Tables.open_installed(directory, prepared)
                member.replica.adopt(machine_of(member.tables, member.cluster))
            self._verified = {}
            self._accepted = None
            self._receiver.discard()
        member.replica.driver.reset_log(meta)
