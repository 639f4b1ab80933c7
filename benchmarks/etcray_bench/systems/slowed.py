"""Members whose disk, or whose answers to their peers, can be made slow while they run.

The class below takes the place of `MemberActor` through the factories that a launch takes, so the product
knows nothing of it. Only processes of such members import this module, and the one that launches them.

A slow disk is a pause before each record that the log makes durable, in the thread that does it: where a
slow `fdatasync` would pause it too. A slow peer pauses before it takes the messages of another member.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import ray

from etcray.node.actor import MemberActor
from etcray.node.member import Member
from etcray.spec import ClusterSpec
from etcray_storage.log.log import Log
from etcray_storage.log.record import Record


class Delays:
    """Of this process. Changed by a call of the actor's, read by the threads that wait."""

    disk_seconds = 0.0
    peer_seconds = 0.0


class SlowedMember(Member):
    """A real member that may let its peers wait."""

    def exchange(self, payload: bytes) -> bytes:
        time.sleep(Delays.peer_seconds)
        return super().exchange(payload)


class SlowedMemberActor(MemberActor):
    """A real member's actor, with one call more."""

    def __init__(self, spec: bytes, member_name: str) -> None:
        super().__init__(spec, member_name)
        cluster = msgspec.msgpack.decode(spec, type=ClusterSpec)
        self._member = SlowedMember(cluster, member_name, ray_node=ray.get_runtime_context().get_node_id())
        append = Log.append

        def append_slowly(self: Log, record: Record) -> None:
            time.sleep(Delays.disk_seconds)
            append(self, record)

        Log.append = append_slowly  # type: ignore[method-assign]

    def slow(self, disk_ms: float, peer_ms: float) -> None:
        """From now on, until the next call."""
        Delays.disk_seconds = disk_ms / 1e3
        Delays.peer_seconds = peer_ms / 1e3


def slowed_member_class() -> type[Any]:
    """For `Cluster.launch_with`."""
    return SlowedMemberActor
