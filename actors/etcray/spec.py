"""What a cluster is made of, as plain data: the launcher writes it, the supervisor keeps it true.

Nothing here touches Ray or a disk. Ids are derived, not drawn: the same cluster name and token give
the same ids, as etcd derives its own from peer URLs and token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from etcray_storage.types import ClusterId, MemberId

RAY_NAMESPACE: Final = "etcray"
"""All actors of all clusters live in this Ray namespace, told apart by their names."""


class NodePin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an actor has to live, because its directory or its port is there.

    Not Ray's node id: that one is new whenever the node's Ray is restarted, and the disk is not.
    """

    hostname: str
    address: str
    """Decides only between several nodes of one hostname."""


class MemberSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One Raft member."""

    id: MemberId
    name: str
    data_directory: str
    """Absolute; only this member's incarnations ever open it."""
    pin: NodePin | None = None
    """None: the node of the supervisor, which is the only one in a Ray that etcray itself started."""


class GatewaySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway actor."""

    index: int
    host: str
    port: int
    pin: NodePin | None = None
    """As a member's."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Raft's timers. Pre-vote makes a short election timeout safe: a member that missed some
    heartbeats cannot depose a leader that the majority still hears."""

    heartbeat_ms: int = 100
    election_ms: int = 600
    """An election starts after a random time between this and twice this without a leader."""


class ClusterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. Stored beside the members' directories as `cluster.json`."""

    name: str
    token: str
    """Drawn once, when the cluster is created: two clusters of one name have different ids."""
    cluster_id: ClusterId
    members: tuple[MemberSpec, ...]
    gateways: tuple[GatewaySpec, ...]
    timing: Timing = Timing()
    formed: bool = False
    """True once every member has opened its directory. From then on a member whose directory is
    empty has lost what it promised and must not vote: its actor refuses to open it."""


encode_spec = msgspec.msgpack.Encoder().encode
decode_spec = msgspec.msgpack.Decoder(ClusterSpec).decode


def derive_cluster_id(name: str, token: str) -> ClusterId:
    """63 bits, so that it fits every integer type on the way; never 0."""
    return ClusterId(_hash63(f"cluster/{name}/{token}"))


def derive_member_id(name: str, token: str, member_name: str) -> MemberId:
    """63 bits and never 0, which means nobody."""
    return MemberId(_hash63(f"member/{name}/{token}/{member_name}"))


def _hash63(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) or 1


def compose_members(
    name: str, token: str, directory: str, pins: Sequence[NodePin | None]
) -> tuple[MemberSpec, ...]:
    """One member for each pin, named member1, member2, ...; `directory` is the cluster's own."""
    names = [f"member{number}" for number in range(1, len(pins) + 1)]
    return tuple(
        MemberSpec(
            id=derive_member_id(name, token, member),
            name=member,
            data_directory=f"{directory}/{member}",
            pin=pin,
        )
        for member, pin in zip(names, pins, strict=True)
    )


def member_actor_name(cluster: str, member: str) -> str:
    return f"{cluster}/member/{member}"


def gateway_actor_name(cluster: str, index: int) -> str:
    return f"{cluster}/gateway/{index}"


def supervisor_actor_name(cluster: str) -> str:
    return f"{cluster}/supervisor"
