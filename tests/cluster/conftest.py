"""The clusters that tests of this folder share: starting one costs seconds. Keys are kept apart by tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from etcray import Cluster
from etcray_bench.etcd import EtcdCluster
from tests.etcd_tools import Etcdctl, Facts, distributions, etcd_program


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members on Ray and one gateway, for tests that leave it whole."""
    directory = tmp_path_factory.mktemp("shared-cluster")
    with Cluster.launch(nodes=3, name="shared", data_dir=str(directory), listen="127.0.0.1:0") as launched:
        yield launched


@pytest.fixture(scope="session")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Three members of the real one."""
    program = etcd_program("3.5")
    if program is None:
        pytest.skip("etcd 3.5 is not installed")
    with EtcdCluster(tmp_path_factory.mktemp("etcd-cluster"), members=3, binary=program) as launched:
        yield launched


@dataclass(frozen=True)
class Target:
    """Etcdctl and what it talks to."""

    etcdctl: Etcdctl
    facts: Facts
    is_etcd: bool


@pytest.fixture(
    params=[
        pytest.param(
            (kind, found),
            id=f"{kind}-{found.version}",
            marks=[pytest.mark.cluster] if kind == "etcray" else [],
        )
        for kind in ("etcray", "etcd")
        for found in distributions()
        if found.etcdctl is not None
    ]
)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Every installed etcdctl, once with etcray's cluster and once with the real one: what a test
    expects of etcray is what it sees of etcd."""
    kind, found = request.param
    if kind == "etcray":
        endpoint = request.getfixturevalue("cluster").endpoints[0]
    else:
        endpoint = request.getfixturevalue("etcd_cluster").endpoints[0]
    facts = Facts(endpoint)
    yield Target(Etcdctl(found.etcdctl, found.version, endpoint), facts, kind == "etcd")
    facts.close()


@pytest.fixture
def ctl(target: Target) -> Etcdctl:
    return target.etcdctl


@pytest.fixture
def facts(target: Target) -> Facts:
    return target.facts
