"""Fresh stores to compare. Each serves until its context is left and is never used for a second run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from etcray import Cluster
from etcray_bench.etcd import EtcdCluster
from tests.differential.calls import Side
from tests.etcd_tools import etcd_program
from tests.gateway.serving import ServingGateway

Store = Callable[[], AbstractContextManager[Side]]
"""Starts one."""


def etcd(version: str, directory: Path) -> Store:
    """A single etcd of the installed release whose version starts so."""
    program = etcd_program(version)
    assert program is not None, f"no etcd {version} is installed"

    @contextmanager
    def start() -> Iterator[Side]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as data,
            EtcdCluster(Path(data), members=1, binary=program) as running,
            Side(running.endpoints[0]) as side,
        ):
            yield side

    return start


@contextmanager
def serving_member() -> Iterator[str]:
    """etcray's gateway and state machine in this process, without consensus and without a disk."""
    with ServingGateway() as gateway:
        yield gateway.address


def one_member() -> Store:
    """The above, as a store to compare."""

    @contextmanager
    def start() -> Iterator[Side]:
        with serving_member() as endpoint, Side(endpoint) as side:
            yield side

    return start


def whole_cluster(directory: Path) -> Store:
    """Three members on Ray."""

    @contextmanager
    def start() -> Iterator[Side]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as data,
            Cluster.launch(nodes=3, name="differential", data_dir=data, listen="127.0.0.1:0") as cluster,
            Side(cluster.endpoints[0]) as side,
        ):
            yield side

    return start
