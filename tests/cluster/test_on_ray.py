"""On a Ray cluster that is there already: members spread over its nodes; tasks find the cluster.

In a process of its own, because a process is connected to one Ray only, and this one may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = """
import asyncio
import ray
from ray.cluster_utils import Cluster as RayCluster
from etcray import Client, Cluster

nodes = RayCluster()
for _ in range(3):
    nodes.add_node(num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1")

with Cluster.launch(
    nodes=3, name="spread", data_dir="data", listen="127.0.0.1:0", address=nodes.address
) as cluster:
    assert len({member.ray_node for member in cluster.status().members}) == 3
    with Client(cluster.endpoints[0]) as client:
        client.put("from", "outside")

    @ray.remote(num_cpus=0)
    def blocking():
        with Cluster.connect("spread").client() as kv:
            kv.put("from", "a task")
            return kv.get("from").value

    @ray.remote(num_cpus=0)
    def concurrent():
        async def puts():
            async with Cluster.connect("spread").async_client() as kv:
                answers = await asyncio.gather(*(kv.put(f"task/{n}", "x") for n in range(20)))
                return sorted(answer.revision for answer in answers)

        return asyncio.run(puts())

    assert ray.get(blocking.remote()) == b"a task"
    assert ray.get(concurrent.remote()) == list(range(4, 24))

ray.shutdown()
nodes.shutdown()
print("done")
"""


def test_members_are_spread_over_the_nodes_and_tasks_find_the_cluster(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"
