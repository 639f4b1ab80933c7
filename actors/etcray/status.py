"""What a cluster reports about itself, for people and programs. The supervisor makes it."""

from __future__ import annotations

import msgspec

from etcray_storage.types import ClusterId, Index, MemberId, Term


class ActorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor knows of any actor that it keeps alive."""

    name: str
    phase: str
    """waiting, opening, serving or refused; see `supervision.Phase`"""
    problem: str
    """Why it does not serve, or did not before; empty if nothing ever went wrong."""
    restarts: int
    """How often it was created again since the supervisor started."""
    silent_seconds: float
    """How long ago it last answered."""
    process_id: int
    """0 while it has none."""
    ray_node: str


class MemberReport(ActorReport, frozen=True, kw_only=True):
    """One member; the consensus fields are from its last answer."""

    id: MemberId
    role: str
    """leader, candidate, pre-candidate or follower; unknown before the first answer"""
    term: Term
    leader: MemberId
    commit_index: Index
    applied_index: Index
    revision: int
    ready: bool
    data_directory: str
    size_bytes: int


class GatewayReport(ActorReport, frozen=True, kw_only=True):
    """One gateway."""

    index: int
    endpoint: str
    """HOST:PORT as clients dial it."""


class SupervisorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor itself."""

    process_id: int
    ray_node: str


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, as its supervisor last saw it (at most about a second ago)."""

    name: str
    cluster_id: ClusterId
    ready: bool
    """A leader is known to a majority of the members, and every gateway serves."""
    leader: MemberId
    """0 if there is none."""
    endpoints: tuple[str, ...]
    members: tuple[MemberReport, ...]
    gateways: tuple[GatewayReport, ...]
    supervisor: SupervisorReport


encode_status = msgspec.msgpack.Encoder().encode
decode_status = msgspec.msgpack.Decoder(ClusterStatus).decode
