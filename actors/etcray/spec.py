"""What a cluster is made of, as plain data: the launcher writes it, the supervisor keeps it true.

Nothing here touches Ray or a disk. Ids are derived, not drawn: the same cluster name and token give
the same ids, as etcd derives its own from peer URLs and token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from etcray.tuning import Tuning
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
    node_name: str = ""
    """As given to `ray start --node-name`: then only a node of that name will do. Empty if the node has
    none of its own; Ray then calls it by its address."""


class MemberSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One Raft member."""

    id: MemberId
    name: str
    data_directory: str
    """Absolute; only this member's incarnations ever open it."""
    pin: NodePin | None = None
    """None: the node of the supervisor, which is the only one in a Ray that etcray itself started."""
    joining: bool = False
    """It was added to a cluster that existed, and has not opened its directory yet: it may begin with an
    empty one. Every other member of a formed cluster whose directory is empty has lost its promises."""


class Founder(msgspec.Struct, frozen=True, kw_only=True):
    """One of the members with which the cluster began: the membership before the first change."""

    id: MemberId
    name: str


class GatewaySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway actor."""

    index: int
    host: str
    port: int
    pin: NodePin | None = None
    """As a member's."""


HISTORY_NAME: Final = "history"
"""Of the history actor, and of its directory beside the members'."""


class HistorySpec(msgspec.Struct, frozen=True, kw_only=True):
    """The history actor."""

    directory: str
    """Absolute. May be lost: it is filled again from the members."""
    pin: NodePin | None = None
    """As a member's."""
    retention_seconds: int | None = None
    """Rows that are younger are kept; None keeps all. What the launch says; so are the next two."""
    retention_revisions: int | None = None
    """So many of the newest revisions are kept."""
    retention_bytes: int | None = None
    """About so much is kept on disk."""


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
    history: HistorySpec | None = None
    """None: the cluster runs without; its directory stays for a later launch."""
    formed: bool = False
    """True once every member has opened its directory. From then on a member whose directory is
    empty has lost what it promised and must not vote: its actor refuses to open it."""
    founders: tuple[Founder, ...] = ()
    """Never changes; the members of today are in `members`. A file of an older etcray has none, and
    the members of today are the founders then: use `first_members`."""
    epoch: int = 0
    """Raised by `etcray recover`: the cluster id depends on it, so that members that were lost and
    come back are not heard by the cluster that went on without them."""
    replace_after_seconds: float = 60.0
    """A member whose Ray node has been gone for so long is replaced on another; 0: never."""
    tuning: Tuning = Tuning()
    """Messaging, durability and sizes, as the newest launch chose them."""
    version: int = 0
    """Raised with every change of this spec; see `age`."""

    @property
    def age(self) -> tuple[int, int]:
        """Of several specs of one cluster the one with the highest is the newest."""
        return self.epoch, self.version

    @property
    def first_members(self) -> tuple[Founder, ...]:
        """The founders, whichever etcray wrote this."""
        return self.founders or tuple(Founder(id=member.id, name=member.name) for member in self.members)


encode_spec = msgspec.msgpack.Encoder().encode
decode_spec = msgspec.msgpack.Decoder(ClusterSpec).decode


def derive_cluster_id(name: str, token: str, epoch: int = 0) -> ClusterId:
    """63 bits, so that it fits every integer type on the way; never 0."""
    of_epoch = f"/{epoch}" if epoch else ""
    return ClusterId(_hash63(f"cluster/{name}/{token}{of_epoch}"))


def derive_member_id(name: str, token: str, member_name: str) -> MemberId:
    """63 bits and never 0, which means nobody."""
    return MemberId(_hash63(f"member/{name}/{token}/{member_name}"))


def peer_url(cluster: str, member: str) -> str:
    """Members find each other through Ray; to clients, their address is a name."""
    return f"ray://{cluster}/{member}"


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


def cluster_directory(cluster: ClusterSpec) -> str:
    """The directory in which all members' directories are, the same path on every node."""
    return cluster.members[0].data_directory.rpartition("/")[0]


def member_actor_name(cluster: str, member: str) -> str:
    return f"{cluster}/member/{member}"


def gateway_actor_name(cluster: str, index: int) -> str:
    return f"{cluster}/gateway/{index}"


def history_actor_name(cluster: str) -> str:
    return f"{cluster}/history"


def supervisor_actor_name(cluster: str) -> str:
    return f"{cluster}/supervisor"
