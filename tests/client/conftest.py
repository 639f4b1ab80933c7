"""An etcd and a gateway of etcray for all tests of this folder, and both clients behind one face."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from etcray.client import (
    AsyncClient,
    AsyncElection,
    AsyncGrantedLease,
    AsyncLock,
    AsyncSession,
    AsyncWatch,
    Client,
)
from etcray.client.requests import TxnParts
from etcray_bench.etcd import EtcdCluster
from tests.servers import etcd, gateway, server

__all__ = ["etcd", "gateway", "server"]


@pytest.fixture
def private_etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members that a test may hurt."""
    with EtcdCluster(tmp_path / "etcd") as cluster:
        yield cluster


class LoopThread:
    """An event loop that runs all the time, as leases and watches need it."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run this on the loop, to its end if it is a coroutine."""

        async def run() -> Any:
            outcome = function(*arguments, **options)
            return await outcome if inspect.isawaitable(outcome) else outcome

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_ASYNCHRONOUS = (
    AsyncClient,
    AsyncElection,
    AsyncGrantedLease,
    AsyncLock,
    AsyncSession,
    AsyncWatch,
    AsyncGenerator,
    TxnParts,
)


class Blocking:
    """Something of the asyncio client, with the face of its blocking twin."""

    def __init__(self, wrapped: Any, loop: LoopThread) -> None:
        self._wrapped = wrapped
        self._loop = loop

    def _face(self, outcome: Any) -> Any:
        return Blocking(outcome, self._loop) if isinstance(outcome, _ASYNCHRONOUS) else outcome

    def __getattr__(self, name: str) -> Any:
        if name == "close" and isinstance(self._wrapped, AsyncGenerator):
            name = "aclose"
        attribute = getattr(self._wrapped, name)
        if not inspect.isroutine(attribute):
            return self._face(attribute)

        def call(*arguments: Any, **options: Any) -> Any:
            plain = {
                key: value._wrapped if isinstance(value, Blocking) else value
                for key, value in options.items()
            }
            return self._face(self._loop.call(attribute, *arguments, **plain))

        return call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.call(self._wrapped.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Any:
        self._loop.call(self._wrapped.__aenter__)
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._loop.call(self._wrapped.__aexit__, *error)


class Maker:
    """Makes clients of one kind, closes them all at the end."""

    def __init__(self, kind: str) -> None:
        self._made: list[Client] = []
        self._loop = LoopThread() if kind == "asyncio" else None

    def __call__(self, endpoints: str | Sequence[str], timeout: float = 5.0) -> Client:
        if self._loop is None:
            made = Client(endpoints, timeout)
        else:
            made = cast(Client, Blocking(AsyncClient(endpoints, timeout), self._loop))
        self._made.append(made)
        return made

    def close(self) -> None:
        for client in self._made:
            client.close()
        if self._loop is not None:
            self._loop.close()


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


@pytest.fixture
def store(make_client: Maker, etcd: EtcdCluster) -> Client:
    """A client of an empty etcd, for what only etcd has been taught yet."""
    made = make_client(etcd.endpoints)
    made.delete("", prefix=True)
    return made
