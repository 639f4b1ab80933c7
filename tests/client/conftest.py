"""An etcd and a gateway of etcray for all tests of this folder, and both clients behind one face."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from benchmarks.etcd import EtcdCluster
from etcray.client import AsyncClient, Client
from etcray.client.requests import TxnParts
from tests.gateway.serving import ServingGateway


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def gateway() -> Iterator[ServingGateway]:
    with ServingGateway() as serving:
        yield serving


@pytest.fixture(params=["etcd", "etcray"])
def server(request: pytest.FixtureRequest) -> str:
    """An endpoint of each: the client must not need to know which one it is."""
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd")
        return cluster.endpoints[0]
    serving: ServingGateway = request.getfixturevalue("gateway")
    return serving.address


@pytest.fixture
def private_etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members that a test may hurt."""
    with EtcdCluster(tmp_path / "etcd") as cluster:
        yield cluster


class Blocking:
    """An `AsyncClient` or its transaction whose coroutines are run to their end."""

    def __init__(self, wrapped: object, runner: asyncio.Runner) -> None:
        self._wrapped = wrapped
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            outcome = attribute(*arguments, **options)
            if inspect.iscoroutine(outcome):
                return self._runner.run(outcome)
            return Blocking(outcome, self._runner) if isinstance(outcome, TxnParts) else outcome

        return call


class Maker:
    """Makes clients of one kind, closes them all at the end."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._made: list[Client] = []
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop) if kind == "asyncio" else None

    def __call__(self, endpoints: str | list[str], timeout: float = 5.0) -> Client:
        if self._runner is None:
            made = Client(endpoints, timeout)
        else:
            made = cast(Client, Blocking(AsyncClient(endpoints, timeout), self._runner))
        self._made.append(made)
        return made

    def close(self) -> None:
        for client in self._made:
            client.close()
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Maker]:
    maker = Maker(str(request.param))
    yield maker
    maker.close()


@pytest.fixture
def client(make_client: Maker, server: str) -> Client:
    """A client of an empty store (its revision goes on from test to test)."""
    made = make_client(server)
    made.delete("", prefix=True)
    return made
