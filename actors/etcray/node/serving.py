"""What a member answers those who come by streams: the same calls as by way of Ray.

See `etcray.transport`: this is where a member and its listener meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from etcray.node import api
from etcray.node.opened import OpenMember
from etcray.node.waiters import Steps
from etcray.transport.addresses import socket_path
from etcray.transport.frames import Kind
from etcray.transport.peer_stream import PeerStreams
from etcray.transport.server import StreamServer

if TYPE_CHECKING:
    from etcray.node.member import Member


class Serving:
    """`transport.server.Served` for one opening of a member."""

    def __init__(self, member: Member, opened: OpenMember) -> None:
        self.member = member.spec.id
        self.fail = opened.fail
        self.calls: dict[int, Callable[[bytes], bytes]] = {
            Kind.SNAPSHOT_CHUNK: member.receive_snapshot_chunk,
            Kind.READ: _encoded(member.read),
            Kind.KEEP_ALIVE: _encoded(member.keep_alive),
            Kind.WATCH: _encoded(member.watch),
            Kind.HISTORY: _encoded(member.history),
            Kind.STATUS: lambda _empty: api.encode(member.status()),
            Kind.TRANSFER_LEADERSHIP: _encoded(member.transfer_leadership),
            Kind.HASH_KV: _encoded(member.hash_kv),
            Kind.DEFRAGMENT: _encoded(member.defragment),
            Kind.HISTORY_ROWS: _encoded(member.history_rows),
        }
        self._exchange = opened.replica.exchange
        self._calls = opened.replica.calls

    def hear(self, envelope: bytes) -> bytes | None:
        return self._exchange.take(envelope)

    def propose(self, batch: bytes) -> Steps[bytes]:
        return api.encode((yield from self._calls.propose(batch)))


def _encoded(call: Callable[[bytes], Any]) -> Callable[[bytes], bytes]:
    return lambda request: api.encode(call(request))


def serve(member: Member, opened: OpenMember, streams: PeerStreams) -> StreamServer:
    """Listen, for other hosts too if the cluster has any. Raises DataDirectoryError, OSError."""
    path = socket_path(member.spec.id, member.spec.data_directory)
    server = StreamServer(Serving(member, opened), streams.credentials, path)
    cluster = member.cluster
    pins = [one.pin for one in cluster.members] + [one.pin for one in cluster.gateways]
    pins += [cluster.history.pin] if cluster.history is not None else []
    if len({pin.hostname for pin in pins if pin is not None}) > 1:
        listen_beyond(member, server)
    return server


def listen_beyond(member: Member, server: StreamServer) -> None:
    """Somebody is on another host: listen on the address by which this Ray node is known."""
    if member.spec.pin is not None:
        server.listen_beyond(member.spec.pin.address)
