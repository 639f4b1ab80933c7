"""Real members whose peers reach them by real sockets, with a supervisor's part played by the test."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from etcray.spec import ClusterSpec, Timing
from etcray.transport.addresses import StreamAddress, socket_path
from etcray.transport.handshake import credentials_of
from etcray.transport.member_calls import MemberCalls
from etcray.tuning import Transport, Tuning
from etcray_storage.types import MemberId
from tests.node.local_cluster import LocalCluster, make_spec


def make_direct_spec(directory: Path, nodes: int = 3) -> ClusterSpec:
    spec = make_spec(directory, nodes, Timing(heartbeat_ms=50, election_ms=400))
    return msgspec.structs.replace(spec, tuning=Tuning(transport=Transport.DIRECT))


def address_of(spec: ClusterSpec, member_id: MemberId) -> StreamAddress:
    """Where a member listens on this host, whether its process lives or not."""
    directory = next(member.data_directory for member in spec.members if member.id == member_id)
    return StreamAddress(hostname=socket.gethostname(), unix_path=str(socket_path(member_id, directory)))


def calls_of(spec: ClusterSpec, member_id: MemberId, role: str = "history") -> MemberCalls:
    """A way to call a member from outside."""
    return MemberCalls(credentials_of(spec), member_id, role, lambda: address_of(spec, member_id))


class StreamCluster(LocalCluster):
    """In one process, but for the messages between the members."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        super().__init__(directory, spec=make_direct_spec(directory, nodes))

    def introduce(self) -> None:
        addresses = {member: found.status().stream for member, found in self.board.members.items()}
        for member in self.board.members.values():
            member.connect_streams({known: at for known, at in addresses.items() if at is not None})
