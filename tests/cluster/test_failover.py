"""Processes are killed under load; clients with default timeouts see a pause, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray import Client, Cluster
from etcray.tuning import Transport
from tests.cluster.writers import Writers, is_gone, kill, leader_of, wait_for, wait_until_healed

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=list(Transport))
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose processes are killed; each test leaves it whole again."""
    directory = tmp_path_factory.mktemp("victim")
    with Cluster.launch(
        nodes=3, name="victim", data_dir=str(directory), listen="127.0.0.1:0", transport=request.param
    ) as cluster:
        yield cluster


def test_the_leader_is_killed_and_no_client_sees_an_error(victim: Cluster) -> None:
    with Writers(victim.endpoints[0]) as writers:
        for _ in range(3):
            writers.progress()
            before, leader = victim.status(), leader_of(victim)
            kill(leader)
            writers.progress()
            after = wait_until_healed_while_writing(victim, leader.process_id)
            assert leader.id in after
        assert before.name == "victim"
    with Client(victim.endpoints[0]) as client:
        writers.check(client)
    wait_until_healed(victim, victim.status())


def wait_until_healed_while_writing(cluster: Cluster, old_process: int) -> set[int]:
    """Applied indexes never agree under load; wait until every member has a living process."""

    def whole() -> bool:
        members = cluster.status().members
        return all(
            member.phase == "serving" and member.process_id != old_process and not is_gone(member.process_id)
            for member in members
        )

    wait_for(whole, "the killed member's successor")
    return {member.id for member in cluster.status().members}


def test_a_follower_is_killed_and_catches_up(victim: Cluster) -> None:
    with Writers(victim.endpoints[0]) as writers:
        writers.progress()
        leader = leader_of(victim)
        follower = next(member for member in victim.status().members if member.id != leader.id)
        kill(follower)
        writers.progress(500)
    with Client(victim.endpoints[0]) as client:
        writers.check(client)
    healed = wait_until_healed(victim, victim.status())
    assert follower.process_id not in {member.process_id for member in healed.members}


def test_the_gateway_is_killed_and_clients_reconnect_to_its_successor(victim: Cluster) -> None:
    with Writers(victim.endpoints[0], retries=True) as writers:
        writers.progress()
        kill(victim.status().gateways[0])
        writers.progress()
    with Client(victim.endpoints[0]) as client:
        writers.check(client)
    wait_until_healed(victim, victim.status())


def test_the_supervisor_is_killed_and_its_successor_still_heals(victim: Cluster) -> None:
    with Writers(victim.endpoints[0]) as writers:
        writers.progress()
        supervisor = victim.status().supervisor.process_id
        os.kill(supervisor, signal.SIGKILL)
        writers.progress()
        wait_for(lambda: victim.status().supervisor.process_id != supervisor, "another supervisor")
        leader = leader_of(victim)
        kill(leader)
        writers.progress()
    with Client(victim.endpoints[0]) as client:
        writers.check(client)
    healed = wait_until_healed(victim, victim.status())
    assert leader.process_id not in {member.process_id for member in healed.members}


@pytest.mark.parametrize("transport", list(Transport))
def test_everything_is_killed_at_once_and_started_again(tmp_path: Path, transport: Transport) -> None:
    """The second launch does not name the transport: it is stored."""

    def launch(transport: Transport | None = None) -> Cluster:
        return Cluster.launch(
            nodes=3, name="all", data_dir=str(tmp_path), listen="127.0.0.1:0", transport=transport
        )

    with launch(transport) as cluster:
        with Writers(cluster.endpoints[0], count=4) as writers:
            writers.progress(200)
        status = cluster.status()
        for actor in (*status.members, *status.gateways):
            kill(actor)
        os.kill(status.supervisor.process_id, signal.SIGKILL)
    with launch() as cluster, Client(cluster.endpoints[0]) as client:
        assert cluster.status().tuning.transport is transport
        writers.check(client)
        assert client.put("after", "all").revision == max(writers.revisions) + 1
