"""On a Ray cluster that is there already: members spread over its nodes; tasks find the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from etcray import Client, Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def ray_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Three Ray nodes on this machine; yields the address to join."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = RayCluster()
    for _ in range(3):
        nodes.add_node(num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1")
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]


def test_members_are_spread_over_the_nodes_and_tasks_find_the_cluster(ray_nodes: str, tmp_path: Path) -> None:
    with Cluster.launch(
        nodes=3, name="spread", data_dir=str(tmp_path), listen="127.0.0.1:0", address=ray_nodes
    ) as cluster:
        status = cluster.status()
        assert len({member.ray_node for member in status.members}) == 3
        with Client(cluster.endpoints[0]) as client:
            client.put("from", "outside")

        @ray.remote(num_cpus=0)
        def blocking() -> bytes:
            with Cluster.connect("spread").client() as kv:
                kv.put("from", "a task")
                pair = kv.get("from")
                assert pair is not None
                return pair.value

        @ray.remote(num_cpus=0)
        def concurrent() -> list[int]:
            async def puts() -> list[int]:
                async with Cluster.connect("spread").async_client() as kv:
                    answers = await asyncio.gather(*(kv.put(f"task/{n}", "x") for n in range(20)))
                    return sorted(answer.revision for answer in answers)

            return asyncio.run(puts())

        assert ray.get(blocking.remote()) == b"a task"
        assert ray.get(concurrent.remote()) == list(range(4, 24))
