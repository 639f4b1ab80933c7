"""A gateway over a `LocalMember`, on a loop of its own thread, so that blocking clients can use it."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from etcray.gateway.server import GatewayServer
from etcray_storage.types import ClusterId
from tests.gateway.local_member import CLUSTER_ID, MEMBER_ID, LocalMember

ResultT = TypeVar("ResultT")


class ServingGateway:
    """A context manager: serves on 127.0.0.1 and a free port."""

    def __init__(self) -> None:
        self.member: LocalMember
        self.server: GatewayServer
        self.port = 0
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run this on the gateway's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, function: Callable[[], ResultT]) -> ResultT:
        async def run() -> ResultT:
            return function()

        return self.run(run())

    async def _open(self) -> None:
        self.member = LocalMember()
        endpoints: list[str] = []
        self.server = GatewayServer(
            ClusterId(CLUSTER_ID), {MEMBER_ID: self.member}, endpoints, random.Random(1)
        )
        self.port = await self.server.open("127.0.0.1", 0)
        endpoints.append(f"http://127.0.0.1:{self.port}")

    def __enter__(self) -> ServingGateway:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.server.stop(1.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens on the gateway's own thread."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")
