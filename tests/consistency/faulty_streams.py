"""Streams that can be cut while they run, by the files that cut Ray's calls (`fault_files`).

Each function changes the process in which it is called: a member's, a gateway's. A stream loses nothing in
its middle, so what a cut takes is told to the sender, as when a connection breaks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from etcray.gateway.dispatcher import MemberUnreachableError
from etcray.node.peers import PeerUnreachableError
from etcray.transport.frames import Kind
from etcray.transport.gateway_stream import StreamMemberChannel
from etcray.transport.line import Line
from etcray.transport.peer_stream import PeerStream, SnapshotStream
from tests.consistency.fault_files import (
    cut_file,
    gateway_place,
    member_place,
    pass_or_raise,
    snapshots_file,
)


def make_member_streams_faulty(faults: Path, member: int) -> None:
    """What this member sends to its peers."""
    here = member_place(member)
    send, send_chunk = PeerStream._send, SnapshotStream.snapshot_chunk

    def _send(self: PeerStream, line: Line) -> None:
        if os.path.exists(cut_file(faults, here, member_place(self.peer.member))):
            self.peer.take_now()
            self._peers.unreachable(self.peer.member)
            return
        send(self, line)

    def snapshot_chunk(self: SnapshotStream, chunk: bytes) -> bytes:
        peer = member_place(self._calls._member)
        _look(cut_file(faults, here, peer))
        answer = send_chunk(self, chunk)
        with snapshots_file(faults).open("ab") as file:
            file.write(b".")
        _look(cut_file(faults, peer, here))
        return answer

    _replace(PeerStream, "_send", _send)
    _replace(SnapshotStream, "snapshot_chunk", snapshot_chunk)


def make_gateway_streams_faulty(faults: Path, gateway: int) -> None:
    """This gateway's calls to members, and their answers."""
    here = gateway_place(gateway)
    call = StreamMemberChannel._call

    async def _call(self: StreamMemberChannel, kind: Kind, request: bytes) -> bytes:
        there = member_place(self._member)
        await pass_or_raise(cut_file(faults, here, there), MemberUnreachableError)
        answer = await call(self, kind, request)
        await pass_or_raise(cut_file(faults, there, here), MemberUnreachableError)
        return answer

    _replace(StreamMemberChannel, "_call", _call)


def _replace(owner: type[Any], name: str, function: Any) -> None:
    setattr(owner, name, function)


def _look(file: Path) -> None:
    if file.exists():
        raise PeerUnreachableError(f"{file} exists")
