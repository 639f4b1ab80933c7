"""The load generator on a whole cluster of etcray: three members, a gateway, real actors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray import Cluster
from etcray_bench.load import run_load
from tests.bench.test_workloads import short_load

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("bench-cluster")
    with Cluster.launch(
        nodes=3, name="bench", data_dir=str(directory), listen="127.0.0.1:0", timeout=150.0
    ) as cluster:
        yield cluster.endpoints[0].removeprefix("http://")


@pytest.mark.parametrize(
    "workload", ["put", "mixed", "compare-and-put", "lease", "watch", "ycsb-e", "kubernetes"]
)
def test_workloads_are_answered_and_their_data_is_there(endpoint: str, workload: str) -> None:
    result = run_load(short_load(endpoint, workload, seconds=1.0))
    assert result.failures == {}
    assert result.checked.keys + result.checked.leases > 0
