"""On a Ray of several nodes an experiment spreads members, gateways and load generators over them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray.processes import descendants
from etcray_bench.experiments.measuring import measure_load
from etcray_bench.systems.etcray_system import EtcraySystem
from etcray_bench.systems.spec import SystemSpec
from tests.cluster.ray_nodes import RayNodes

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("laboratory")]

NAMES = ("head", "left", "right")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayNodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    started = RayNodes(*NAMES)
    yield started
    started.kill_everything()


def test_members_and_generators_are_spread_and_usage_is_read_on_every_node(
    nodes: RayNodes, tmp_path: Path
) -> None:
    with EtcraySystem(SystemSpec(history=False), tmp_path / "system", nodes.address) as system:
        members = system.status()["members"]
        assert len({member["ray_node"] for member in members}) == len(NAMES)
        assert system.generator_nodes == len(NAMES)

        load = {"workload": "put", "clients": 6, "keys": 60}
        sample = measure_load(system, load, seconds=5.0, warmup_seconds=0.5)
        assert sample.requests > 0
        assert sample.failures == 0, sample.first_failure
        assert sample.generator_cpu_seconds > 0
        assert sample.roles["followers"].processes == 2
        for role in ("leader", "followers", "gateway"):  # on three nodes
            assert sample.roles[role].cpu_seconds > 0, sample.roles
            assert sample.roles[role].resident_bytes > 2**20, sample.roles

        before = system.member_processes()
        system.kill_leader()
        system.await_whole()
        after = system.member_processes()
        assert len(set(before) - set(after)) == 1, "one member has another process"
        assert len({member["ray_node"] for member in system.status()["members"]}) == len(NAMES)
    assert not [process for process in after if process in descendants(os.getpid())]
