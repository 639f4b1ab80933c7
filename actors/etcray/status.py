"""What a cluster reports about itself, for people and programs. The supervisor makes it."""

from __future__ import annotations

import msgspec

from etcray.tuning import Tuning
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
    learner: bool
    """It has no vote, by the replicated list."""
    term: Term
    leader: MemberId
    commit_index: Index
    applied_index: Index
    revision: int
    ready: bool
    data_directory: str
    size_bytes: int
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    """As in the replicated list; both empty while the member is not in it."""


class GatewayReport(ActorReport, frozen=True, kw_only=True):
    """One gateway."""

    index: int
    endpoint: str
    """HOST:PORT as clients dial it."""


class HistoryReport(ActorReport, frozen=True, kw_only=True):
    """The history actor; what it holds is from its last answer."""

    directory: str
    revision: int
    """Complete through this revision."""
    first_revision: int
    """The oldest revision whose state can be asked for."""
    lag_revisions: int
    is_following: bool
    source: str
    """The member that it follows."""
    rows: int
    size_bytes: int
    note: str
    """What keeps it from following; empty if nothing does."""


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
    history: HistoryReport | None
    """None for a cluster without one. It has no part in `ready`."""
    supervisor: SupervisorReport
    membership: str = ""
    """What is being done about the membership, in words; empty when nothing is."""
    next_name: str = ""
    """For a member that is to be added: one that no member has or had."""
    tuning: Tuning = Tuning()


encode_status = msgspec.msgpack.Encoder().encode
decode_status = msgspec.msgpack.Decoder(ClusterStatus).decode
