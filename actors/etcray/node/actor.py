"""A member as a Ray actor: the thin shell that gives `Member` its place in the cluster.

The actor is a *threaded* one (plain methods, max_concurrency above 1). Measured on two cores: a call
with 1 kB takes 1.2 ms to such an actor and 2.1 ms to an asyncio actor, at half the callee's CPU; and
consensus here is a mutex and hand-overs between threads, so an event loop would have nothing to do.

Ray gives no order between the calls of a threaded actor, may deliver a call whose caller has given
up, and reports a dead peer late. All of that is allowed for in the layers below.

Whoever has an actor's handle imports this module: supervisor, gateways and history. So it imports the member
itself, with DuckDB and Arrow, only in the member's own process: 0.7 s of CPU less in each of the others.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayError

from etcray.node import api
from etcray.node.peers import SNAPSHOT_CHUNK_TIMEOUT_SECONDS, PeerUnreachableError
from etcray.spec import ClusterSpec
from etcray.transport.addresses import StreamAddress
from etcray_storage.types import MemberId

if TYPE_CHECKING:
    from etcray.node.member import Member

EXCHANGE_TIMEOUT_SECONDS: Final = 0.5
"""A peer that does not answer within this is treated as unreachable; the call may still run there."""

COLLECTOR_THRESHOLDS: Final = (50_000, 20, 100)
"""In place of Python's 700, 10, 10. The first is above the rows and events that wait for half a second or in
a ring: looking through them, with 5,000, is a twentieth of what a member spends on a put of 1,024 clients."""

CALLS_ABANDONED_MAX: Final = 4
"""Timed-out calls to one peer that may still be on their way. At the limit the peer is not called
until one of them ends: a paused process must not collect calls without bound."""


class RayPeerChannel:
    """Calls one peer through its actor handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._abandoned: list[Any] = []

    def exchange(self, envelope: bytes) -> bytes:
        if len(self._abandoned) >= CALLS_ABANDONED_MAX:
            ended, self._abandoned = ray.wait(self._abandoned, num_returns=len(self._abandoned), timeout=0)
            if not ended:
                raise PeerUnreachableError("the peer has not answered its last calls")
        return self._call(self._handle.exchange, envelope, EXCHANGE_TIMEOUT_SECONDS)

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        return self._call(self._handle.snapshot_chunk, chunk, SNAPSHOT_CHUNK_TIMEOUT_SECONDS)

    def _call(self, method: Any, argument: bytes, timeout_seconds: float) -> bytes:
        try:
            reference = method.remote(argument)
            reply: bytes = ray.get(reference, timeout=timeout_seconds)
        except GetTimeoutError as e:
            self._abandoned.append(reference)
            raise PeerUnreachableError(f"no answer within {timeout_seconds} s") from e
        except RayError as e:
            raise PeerUnreachableError(str(e)) from e
        return reply


def calm_collector() -> None:
    """What is there by now stays: modules, and the keys, which the collector does not know anyway. Applied
    rows and events are many, and none is ever part of a cycle. Measured on a loaded machine over 30,000
    puts: 233 collections took 130 ms, one of them 65; with this and a threshold of 5,000, 6 took 14 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


class MemberActor:
    """One member's process. Created by the supervisor, which alone decides where and when."""

    def __init__(self, spec: bytes, member_name: str) -> None:
        from etcray_storage.engine import configure_arrow

        configure_arrow()
        from etcray.node.member import Member

        cluster = msgspec.msgpack.decode(spec, type=ClusterSpec)
        self._member: Member = Member(cluster, member_name, ray_node=ray.get_runtime_context().get_node_id())

    def open(self) -> bytes:
        """Recover from disk. Raises OperatingError if the directory cannot be used."""
        self._member.open()
        calm_collector()
        return self.status()

    def set_peers(self, handles: dict[int, Any]) -> None:
        """The actors of other members; called again whenever one of them was created, or created anew.
        Members that are not known yet, and ones that were removed, may be among them."""
        self._member.connect({member: RayPeerChannel(handle) for member, handle in handles.items()})

    def set_streams(self, addresses: dict[int, StreamAddress]) -> None:
        """In place of `set_peers`, if members talk by streams: where they listen."""
        self._member.connect_streams(addresses)

    def member_died(self, member: int) -> None:
        """The supervisor saw a member's process end."""
        self._member.member_died(MemberId(member))

    def exchange(self, envelope: bytes) -> bytes:
        return self._member.exchange(envelope)

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        return self._member.receive_snapshot_chunk(chunk)

    def propose(self, batch: bytes) -> bytes:
        return api.encode(self._member.propose(batch))

    def read(self, request: bytes) -> bytes:
        return api.encode(self._member.read(request))

    def keep_alive(self, request: bytes) -> bytes:
        return api.encode(self._member.keep_alive(request))

    def watch(self, poll: bytes) -> bytes:
        return api.encode(self._member.watch(poll))

    def history(self, request: bytes) -> bytes:
        return api.encode(self._member.history(request))

    def transfer_leadership(self, request: bytes) -> bytes:
        return api.encode(self._member.transfer_leadership(request))

    def hash_kv(self, request: bytes) -> bytes:
        return api.encode(self._member.hash_kv(request))

    def defragment(self, _request: bytes = b"") -> bytes:
        return api.encode(self._member.defragment())

    def history_rows(self, request: bytes) -> bytes:
        return api.encode(self._member.history_rows(request))

    def status(self) -> bytes:
        return api.encode(self._member.status())

    def stop(self) -> None:
        """Hand over the leadership, write what is applied and close every file. The process is of no use
        afterwards."""
        self._member.close()

    def process_id(self) -> int:
        return os.getpid()
