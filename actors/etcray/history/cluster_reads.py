"""What history asks the leader for: how far the cluster is, and the state that has no revisions.

Leases and members are not rows of the store. A query that names one of their tables gets them as they are
when it begins; for others nothing is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import pyarrow as pa

from etcray.history.channels import Channels, MemberUnreachableError
from etcray.node.api import Outcome, ReadReply, ReadRequest, decode_read_reply, encode
from etcray_storage.commands import ReadKind
from etcray_storage.history.rows import LEASES_SCHEMA, MEMBERS_SCHEMA, SideTables, empty_sides
from etcray_storage.limits import HISTORY_LEASES_PER_READ
from etcray_storage.proto.rpc_pb2 import (
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberListRequest,
    MemberListResponse,
    RangeRequest,
)
from etcray_storage.types import NOBODY, MemberId

READ_TIMEOUT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.05

_REVISION: Final = (ReadKind.RANGE, RangeRequest(key=b"\0", count_only=True).SerializeToString())
"""The cheapest read there is, for its revision."""
_LEASES: Final = (ReadKind.LEASE_LEASES, LeaseLeasesRequest().SerializeToString())
_MEMBERS: Final = (ReadKind.MEMBER_LIST, MemberListRequest().SerializeToString())

Question = tuple[ReadKind, bytes]


class NoAnswerError(Exception):
    """No member could answer in time."""


class Present(NamedTuple):
    """The cluster at the moment in which it was asked."""

    revision: int
    sides: SideTables


class ClusterReads:
    """Safe to use from several threads."""

    def __init__(self, channels: Channels, clock: Callable[[], float] = time.monotonic) -> None:
        self._channels = channels
        self._clock = clock
        self._lock = threading.Lock()
        self._leader = NOBODY

    def present(self, sql: str, *, stale: bool, deadline: float, is_cancelled: Callable[[], bool]) -> Present:
        """What a query of this text needs: the revision that it has to see, 0 if it may be stale, and the
        tables that it may name. Raises NoAnswerError; a stale query without tables asks nobody."""
        text = sql.lower()
        wants_leases, wants_members = "leases" in text, "members" in text
        if stale and not wants_leases and not wants_members:
            return Present(0, empty_sides())

        def ask(questions: Sequence[Question]) -> ReadReply:
            return self._read(questions, not stale, deadline, is_cancelled)

        questions = [_REVISION, *([_LEASES] if wants_leases else ()), *([_MEMBERS] if wants_members else ())]
        reply = ask(questions)
        sides = empty_sides()
        if wants_leases:
            ids = [lease.ID for lease in LeaseLeasesResponse.FromString(reply.bodies[1]).leases]
            sides = sides._replace(leases=_lease_table(ids, ask))
        if wants_members:
            members = MemberListResponse.FromString(reply.bodies[-1])
            sides = sides._replace(members=_member_table(members, reply.leader))
        return Present(0 if stale else reply.revisions[0], sides)

    def _read(
        self,
        questions: Sequence[Question],
        linearizable: bool,
        deadline: float,
        is_cancelled: Callable[[], bool],
    ) -> ReadReply:
        kinds = bytes(kind for kind, _ in questions)
        encoded = encode(ReadRequest(linearizable, kinds, [body for _, body in questions]))
        avoided: set[MemberId] = set()
        while not is_cancelled():
            remaining = deadline - self._clock()
            if remaining <= 0:
                break
            member = self._choose(avoided)
            reply = self._ask(member, encoded, min(remaining, READ_TIMEOUT_SECONDS))
            if reply is not None and reply.outcome is Outcome.ANSWERED:
                with self._lock:
                    self._leader = reply.leader
                return reply
            avoided.add(member)
            with self._lock:
                hint = NOBODY if reply is None else reply.leader
                self._leader = hint if hint not in avoided else NOBODY
            if avoided >= set(self._channels.members):
                avoided.clear()
                time.sleep(min(RETRY_SECONDS, remaining))
        raise NoAnswerError("no member could say how far the cluster is: there is no leader, or it is busy")

    def _choose(self, avoided: set[MemberId]) -> MemberId:
        members = self._channels.members
        with self._lock:
            if self._leader in members:
                return self._leader
        return next((member for member in members if member not in avoided), NOBODY)

    def _ask(self, member: MemberId, request: bytes, timeout_seconds: float) -> ReadReply | None:
        try:
            return decode_read_reply(self._channels.get(member).read(request, timeout_seconds))
        except MemberUnreachableError:
            return None


def _lease_table(ids: list[int], ask: Callable[[Sequence[Question]], ReadReply]) -> pa.Table:
    """Without those that end meanwhile."""
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(ids), HISTORY_LEASES_PER_READ):
        piece = ids[start : start + HISTORY_LEASES_PER_READ]
        requests = [LeaseTimeToLiveRequest(ID=lease).SerializeToString() for lease in piece]
        reply = ask([(ReadKind.LEASE_TIME_TO_LIVE, request) for request in requests])
        for body in reply.bodies:
            lease = LeaseTimeToLiveResponse.FromString(body)
            if lease.TTL >= 0 and lease.ID:
                found.append((lease.ID, lease.grantedTTL, lease.TTL * 1000))
    columns = zip(*found, strict=True) if found else [()] * len(LEASES_SCHEMA)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, LEASES_SCHEMA, strict=True)],
        schema=LEASES_SCHEMA,
    )


def _member_table(response: MemberListResponse, leader: MemberId) -> pa.Table:
    rows = [
        {
            "id": f"{member.ID:x}",
            "name": member.name,
            "is_learner": member.isLearner,
            "is_leader": leader == member.ID,
            "peer_urls": list(member.peerURLs),
            "client_urls": list(member.clientURLs),
        }
        for member in response.members
    ]
    return pa.Table.from_pylist(rows, schema=MEMBERS_SCHEMA)
