"""`etcray member ...`, `resize` and `move-leader`: one step each, with what is being done shown meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import typer

from etcray.cli.output import print_json
from etcray.cluster import Cluster, Teller
from etcray.status import ClusterStatus, MemberReport

TITLES = ("id", "status", "name", "peer URLs", "client URLs", "is learner", "is leader")


class At(NamedTuple):
    """Which cluster, and how to answer."""

    name: str
    address: str | None
    timeout: float
    as_json: bool

    @property
    def tell(self) -> Teller:
        """Steps go to the terminal's error output where the answer is JSON for a program."""
        return lambda step: typer.echo(step, err=self.as_json)


@contextmanager
def _cluster(at: At) -> Iterator[Cluster]:
    cluster = Cluster.connect(at.name, at.address)
    try:
        yield cluster
    finally:
        cluster.close()


def list_all(at: At) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.status())


def resize(at: At, voters: int) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.resize(voters, timeout=at.timeout, tell=at.tell))


def add(at: At, name: str | None, learner: bool) -> None:
    with _cluster(at) as cluster:
        cluster.add_member(name, learner=learner, timeout=at.timeout, tell=at.tell)
        _show(at, cluster.status())


def remove(at: At, which: str) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.remove_member(which, timeout=at.timeout, tell=at.tell))


def promote(at: At, which: str) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.promote_member(which, timeout=at.timeout, tell=at.tell))


def update(at: At, which: str, peer_urls: str) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.update_member(which, peer_urls.split(","), timeout=at.timeout))


def move_leader(at: At, which: str) -> None:
    with _cluster(at) as cluster:
        _show(at, cluster.move_leader(which, timeout=at.timeout, tell=at.tell))


def _show(at: At, status: ClusterStatus) -> None:
    members = sorted(status.members, key=lambda member: member.id)
    if at.as_json:
        print_json({"name": status.name, "members": [_as_json(status, member) for member in members]})
        return
    rows = [TITLES, *(_cells(status, member) for member in members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(status: ClusterStatus, member: MemberReport) -> tuple[str, ...]:
    return (
        f"{member.id:x}",
        "started" if member.client_urls else "unstarted",
        member.name,
        ",".join(member.peer_urls),
        ",".join(member.client_urls),
        str(member.learner).lower(),
        str(member.id == status.leader).lower(),
    )


def _as_json(status: ClusterStatus, member: MemberReport) -> dict[str, Any]:
    return {
        "id": f"{member.id:x}",
        "name": member.name,
        "phase": member.phase,
        "is_learner": member.learner,
        "is_leader": member.id == status.leader,
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "ray_node": member.ray_node,
        "data_directory": member.data_directory,
    }
