"""What the supervisor tells of the cluster, made from what the keeper has heard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import msgspec

from etcray.node.api import MemberStatus
from etcray.spec import ClusterSpec
from etcray.status import ClusterStatus, GatewayReport, HistoryReport, MemberReport, SupervisorReport
from etcray.supervision import Phase
from etcray.supervisor.keeper import Keeper
from etcray.supervisor.watched import Common, Watched, members_of
from etcray_storage.types import NOBODY, MemberId


def make_report(keeper: Keeper, spec: ClusterSpec, membership: str, next_name: str) -> ClusterStatus:
    """As of now; nobody is asked for it."""
    now = time.monotonic()
    names = {int(member.spec.id): member.name for member in members_of(keeper.watched)}
    reports = [watched.report(_common(keeper, watched, names, now)) for watched in keeper.watched.values()]
    gateways = tuple(report for report in reports if isinstance(report, GatewayReport))
    histories = (report for report in reports if isinstance(report, HistoryReport))
    leader = find_leader(keeper)
    serving = all(gateway.phase == Phase.SERVING for gateway in gateways)
    return ClusterStatus(
        name=spec.name,
        cluster_id=spec.cluster_id,
        ready=leader != NOBODY and serving,
        leader=leader,
        endpoints=tuple(gateway.endpoint for gateway in gateways if gateway.endpoint),
        members=_listed(keeper, [report for report in reports if isinstance(report, MemberReport)]),
        gateways=gateways,
        history=next(histories, None),
        supervisor=SupervisorReport(process_id=os.getpid(), ray_node=keeper.node),
        membership=membership,
        next_name=next_name,
        tuning=spec.tuning,
    )


def _common(keeper: Keeper, watched: Watched, names: Mapping[int, str], now: float) -> Common:
    charge = keeper.supervision.charges[watched.name]
    return Common(
        phase=str(charge.phase),
        problem=charge.problem,
        restarts=charge.restarts,
        silent_seconds=round(keeper.supervision.silent_seconds(watched.name, now), 3),
        member_names=names,
    )


def _listed(keeper: Keeper, reports: list[MemberReport]) -> tuple[MemberReport, ...]:
    """With what the newest list says of each."""
    newest = newest_status(keeper)
    listed = {member.id: member for member in newest.members} if newest is not None else {}
    return tuple(
        msgspec.structs.replace(
            report,
            learner=listed[report.id].is_learner,
            peer_urls=listed[report.id].peer_urls,
            client_urls=listed[report.id].client_urls,
        )
        if report.id in listed
        else report
        for report in reports
    )


def newest_status(keeper: Keeper) -> MemberStatus | None:
    """Of the member that has applied most: its list of members is the newest. None before any member has
    told one."""
    statuses = [m.status for m in members_of(keeper.watched) if m.status is not None and m.status.members]
    return max(statuses, key=lambda status: status.applied_index, default=None)


def find_leader(keeper: Keeper) -> MemberId:
    """Whom a majority of the voters takes for the leader in the highest term, and who says so itself; or
    nobody."""
    newest = newest_status(keeper)
    if newest is None:
        return NOBODY
    voters = newest.membership.voters
    statuses = [m.status for m in members_of(keeper.watched) if m.status is not None and m.spec.id in voters]
    leaders = [status for status in statuses if status.role == "leader"]
    if not leaders:
        return NOBODY
    leader = max(leaders, key=lambda status: status.term).member
    followers = [status for status in statuses if status.leader == leader]
    return leader if len(followers) * 2 > len(voters) else NOBODY
