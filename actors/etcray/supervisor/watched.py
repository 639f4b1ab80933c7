"""The kinds of actors that the supervisor keeps alive, and what is particular about each.

What they have in common (create, introduce, ask, bury) is the `keeper`'s. A new kind is a new subclass of
`Watched` here, and its place in the report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from etcray.history.api import HistoryStatus
from etcray.history.api import decode_status as decode_history_status
from etcray.node.api import MemberStatus, decode_status
from etcray.placement import check_directory
from etcray.spec import (
    HISTORY_NAME,
    ClusterSpec,
    GatewaySpec,
    HistorySpec,
    MemberSpec,
    NodePin,
    encode_spec,
    gateway_actor_name,
    history_actor_name,
    member_actor_name,
)
from etcray.status import ActorReport, GatewayReport, HistoryReport, MemberReport
from etcray.transport.addresses import StreamAddress
from etcray_storage.types import NOBODY, Index, MemberId, Term

MEMBER_CONCURRENCY: Final = 64

HISTORY_CONCURRENCY: Final = 48
"""Every query holds a thread of the actor, until its pool refuses more; the rest is for everybody else."""

ActorFactory = Callable[[], type[Any]]
"""Gives the class of an actor. A function, because importing the class is slow and is for the
supervisor's process to do."""

Handles = dict[int, Any]
"""The actor handles of all members, by their ids."""


@dataclass(frozen=True, slots=True)
class Known:
    """Whom the actors are told of."""

    members: Handles
    streams: dict[int, StreamAddress] | None
    """Where the members listen, in place of their handles; None if they are called by way of Ray."""
    history: Any
    """None while it does not serve."""


@dataclass(frozen=True, slots=True)
class Common:
    """The fields that all reports share."""

    phase: str
    problem: str
    restarts: int
    silent_seconds: float
    member_names: Mapping[int, str]
    """By id: of all that there are now."""


class Watched(ABC):
    """What the supervisor holds of one actor, beside its `Charge`."""

    options: ClassVar[dict[str, Any]] = {}
    """What Ray is told about actors of this kind, beyond what it is told about all."""

    is_let_go: ClassVar[bool] = False
    """Others are told at once when it has ended, by another introduction without it."""

    def __init__(self, name: str, ray_name: str, pin: NodePin | None, place: int) -> None:
        self.name: Final = name
        self.ray_name: Final = ray_name
        self.pin: Final = pin
        """Where it has to live. None: with the supervisor."""
        self.place: Final = place
        """Its number among its kind: several actors with one pin take turns over the nodes that match it."""
        self.handle: Any = None
        self.process_id = 0
        self.ray_node = ""
        self.asked_at = 0.0
        self.is_asked = False
        """A status call is under way: there is never more than one."""
        self.has_opened = False
        """Since this supervisor started."""
        self.introduced = 0
        """The number of the last introduction that it was given."""
        self.introductions_awaited = 0
        """Calls that introduce and are not answered. There is no second introduction meanwhile: a process
        that was stopped would take both in any order when it goes on, and could end with the older one."""
        self.introduce_after = 0.0

    def is_placed_on(self, node: str) -> bool:
        """Whether it runs on that Ray node."""
        return self.ray_node == node

    def forget_process(self) -> None:
        """It has ended."""
        self.process_id, self.is_asked = 0, False
        self.introduced, self.introductions_awaited, self.introduce_after = 0, 0, 0.0

    def check(self, cluster: ClusterSpec) -> None:  # noqa: B027
        """Before it is created on this machine: raises OperatingError if it could not open there."""

    @abstractmethod
    def arguments(self, cluster: ClusterSpec) -> tuple[Any, ...]:
        """Of its constructor."""

    @abstractmethod
    def introductions(self, known: Known) -> list[tuple[Any, Any]]:
        """The methods that tell it of others, each with what it is told."""

    @abstractmethod
    def opened(self, answer: Any) -> None:
        """What its `open` returned."""

    def answered(self, status: bytes) -> None:  # noqa: B027
        """What its `status` returned."""

    @abstractmethod
    def report(self, common: Common) -> ActorReport:
        """For people and programs."""

    def shared(self, common: Common) -> dict[str, Any]:
        """The fields of `ActorReport`."""
        return {
            "name": self.name,
            "phase": common.phase,
            "problem": common.problem,
            "restarts": common.restarts,
            "silent_seconds": common.silent_seconds,
            "process_id": self.process_id,
            "ray_node": self.ray_node,
        }


class WatchedMember(Watched):
    """A member: its directory decides where it lives."""

    options: ClassVar[dict[str, Any]] = {"max_concurrency": MEMBER_CONCURRENCY}

    def __init__(self, cluster: str, spec: MemberSpec, place: int) -> None:
        super().__init__(spec.name, member_actor_name(cluster, spec.name), spec.pin, place)
        self.spec = spec
        self.status: MemberStatus | None = None
        """Its last answer; None while it has no process."""
        self.is_quarantined = False
        """It refused to open because its disk is damaged, or lost what it had promised."""
        self.gone_since: float | None = None
        """Since when no living Ray node matches its pin; monotonic seconds."""

    def forget_process(self) -> None:
        super().forget_process()
        self.status = None

    def check(self, cluster: ClusterSpec) -> None:
        if self._is_formed(cluster) and not self.spec.joining:
            check_directory(self.spec)

    def _is_formed(self, cluster: ClusterSpec) -> bool:
        return cluster.formed or self.has_opened

    def arguments(self, cluster: ClusterSpec) -> tuple[Any, ...]:
        known = msgspec.structs.replace(cluster, formed=self._is_formed(cluster))
        return encode_spec(known), self.name

    @property
    def stream(self) -> StreamAddress | None:
        return self.status.stream if self.status is not None else None

    def introductions(self, known: Known) -> list[tuple[Any, Any]]:
        if known.streams is not None:
            return [(self.handle.set_streams, known.streams)]
        return [(self.handle.set_peers, known.members)]

    def opened(self, answer: Any) -> None:
        self.status = decode_status(answer)
        self.is_quarantined, self.gone_since = False, None

    def answered(self, status: bytes) -> None:
        """Answers may overtake each other: an older one does not replace a newer one."""
        heard = decode_status(status)
        if self.status is None or heard.applied_index >= self.status.applied_index:
            self.status = heard

    def report(self, common: Common) -> MemberReport:
        """What the replicated list says is for whoever has seen the newest one to fill in."""
        status = self.status
        return MemberReport(
            **self.shared(common),
            id=self.spec.id,
            role=status.role if status else "unknown",
            learner=False,
            term=status.term if status else Term(0),
            leader=status.leader if status else NOBODY,
            commit_index=status.commit_index if status else Index(0),
            applied_index=status.applied_index if status else Index(0),
            revision=status.revision if status else 0,
            ready=status.ready if status else False,
            data_directory=self.spec.data_directory,
            size_bytes=status.size_bytes if status else 0,
        )


class WatchedGateway(Watched):
    """A gateway: its port decides where it lives."""

    def __init__(self, cluster: str, spec: GatewaySpec, *, has_history: bool) -> None:
        super().__init__(
            f"gateway{spec.index}", gateway_actor_name(cluster, spec.index), spec.pin, spec.index
        )
        self.spec = spec
        self.endpoint = f"{spec.host}:{spec.port}"
        self._has_history = has_history

    def arguments(self, cluster: ClusterSpec) -> tuple[Any, ...]:
        return encode_spec(cluster), self.spec.index

    def introductions(self, known: Known) -> list[tuple[Any, Any]]:
        told = [members_told(self.handle, known)]
        return [*told, (self.handle.set_history, known.history)] if self._has_history else told

    def opened(self, answer: Any) -> None:
        self.endpoint = answer

    def report(self, common: Common) -> GatewayReport:
        return GatewayReport(**self.shared(common), index=self.spec.index, endpoint=self.endpoint)


class WatchedHistory(Watched):
    """The history actor: its directory decides where it lives."""

    options: ClassVar[dict[str, Any]] = {"max_concurrency": HISTORY_CONCURRENCY}
    is_let_go: ClassVar[bool] = True

    def __init__(self, cluster: str, spec: HistorySpec) -> None:
        super().__init__(HISTORY_NAME, history_actor_name(cluster), spec.pin, 0)
        self.spec = spec
        self.status: HistoryStatus | None = None

    def arguments(self, cluster: ClusterSpec) -> tuple[Any, ...]:
        return (encode_spec(cluster),)

    def introductions(self, known: Known) -> list[tuple[Any, Any]]:
        return [members_told(self.handle, known)]

    def opened(self, answer: Any) -> None:
        self.answered(answer)

    def answered(self, status: bytes) -> None:
        self.status = decode_history_status(status)

    def report(self, common: Common) -> HistoryReport:
        status = self.status
        return HistoryReport(
            **self.shared(common),
            directory=self.spec.directory,
            revision=status.revision if status else 0,
            first_revision=status.first_revision if status else 0,
            lag_revisions=status.lag_revisions if status else 0,
            is_following=status.is_following if status else False,
            source=common.member_names.get(status.source, "") if status else "",
            rows=status.rows if status else 0,
            size_bytes=status.size_bytes if status else 0,
            note=status.problem if status else "",
        )


def members_told(handle: Any, known: Known) -> tuple[Any, Any]:
    """How a gateway or the history is told of the members."""
    if known.streams is not None:
        return handle.set_streams, known.streams
    return handle.set_members, known.members


def watched_of(cluster: ClusterSpec) -> list[Watched]:
    """Everything that the spec names."""
    has_history = cluster.history is not None
    watched: list[Watched] = [
        WatchedMember(cluster.name, member, place) for place, member in enumerate(cluster.members)
    ]
    watched += [
        WatchedGateway(cluster.name, gateway, has_history=has_history) for gateway in cluster.gateways
    ]
    if cluster.history is not None:
        watched.append(WatchedHistory(cluster.name, cluster.history))
    return watched


def members_of(watched: dict[str, Watched]) -> list[WatchedMember]:
    """The members among them."""
    return [one for one in watched.values() if isinstance(one, WatchedMember)]


def member_id_of(watched: Watched) -> MemberId:
    """Of a member; nobody for all others."""
    return watched.spec.id if isinstance(watched, WatchedMember) else NOBODY
