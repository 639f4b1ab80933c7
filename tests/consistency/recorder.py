"""Clients that do everything a client can do to a few keys, and note what they asked, when, and what came.

They run in one event loop on few connections. A client has one call under way; when it ends, the
next one is sent in the same turn of the loop. All times are of one clock, CLOCK_MONOTONIC.

Beside them, one watch of everything from the first revision on is the truth about what was written. It
goes on over lost connections from the revision after the last one it has.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final

from etcray_storage.errors import Code
from etcray_storage.proto import rpc_pb2 as rpc
from tests.consistency.clients import CallConnection, connect, open_stream
from tests.consistency.history import (
    Compact,
    Event,
    Operation,
    Outcome,
    Request,
    is_serializable,
)
from tests.consistency.messages import METHODS, AnswerReader, encode, event_of, outcome_of_error
from tests.consistency.mix import EVERYTHING, Mix

DEADLINE_SECONDS: Final = 3.0
"""After so long a client does not wait any more."""

PAUSE_SECONDS: Final = 0.05
"""After an error, before the client's next call."""

NOBODY: Final = -1
"""The client of what the harness itself asks."""

FEW_CLIENTS: Final = 8
FEW_OPERATIONS: Final = 150
"""After a rest."""

SWEEP_SECONDS: Final = 0.25
REST_SECONDS_MAX: Final = 240.0


class Clients:
    """All clients of one history."""

    def __init__(self, endpoints: Sequence[str], seed: int, count: int, connections: int = 2) -> None:
        self._endpoints = endpoints
        self._random = random.Random(f"clients {seed}")
        self.mix = Mix(seed)
        self._reader = AnswerReader()
        self.operations: list[Operation] = []
        self.errors: Counter[str] = Counter()
        self._lines: list[CallConnection | None] = [None] * (len(endpoints) * connections)
        self._idle: list[list[int]] = [[] for _ in self._lines]
        """By connection: clients that have nothing under way."""
        for client in range(count):
            self._idle[client % len(self._lines)].append(client)
        self._under_way = 0
        self._issued = 0
        self._running = False
        self._few_until = 0
        """Up to so many calls only `FEW_CLIENTS` may call: the search cannot follow more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def open(self) -> None:
        for number in range(len(self._lines)):
            self._spawn(self._keep_connected(number))
        self._spawn(self._sweep())

    async def close(self) -> None:
        self._running = False
        for task in list(self._tasks):
            task.cancel()
        for line in self._lines:
            if line is not None:
                line.close()

    def run(self) -> None:
        """Go on, until `stop`."""
        self._running = True
        self._fill_all()

    @property
    def issued(self) -> int:
        return self._issued

    def stop(self) -> None:
        """Make no more calls; those under way go on."""
        self._running = False

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            self.check()
            await asyncio.sleep(0.002)

    async def rest(self) -> None:
        """Let everything end, read all keys while nothing else is under way, and go on: first with few
        clients, then with all."""
        was_running, self._running = self._running, False
        await self.idle()
        answer = await self.ask(EVERYTHING)
        if answer is not None and answer.outcome is not Outcome.OK:
            await asyncio.sleep(PAUSE_SECONDS)
        if was_running:
            self._few_until = self._issued + FEW_OPERATIONS
            self.run()

    async def ask(self, request: Request) -> Operation | None:
        """One more call by nobody in particular, recorded as well; None if there is no connection."""
        line = next((line for line in self._lines if line is not None and not line.is_lost), None)
        if line is None:
            return None
        ended: asyncio.Future[Operation] = asyncio.get_running_loop().create_future()
        self._send(line, NOBODY, request, lambda told: None if ended.done() else ended.set_result(told))
        return await ended

    async def ask_until_answered(self, request: Request) -> Operation:
        """Raises TimeoutError after some minutes."""
        async with asyncio.timeout(REST_SECONDS_MAX):
            while True:
                self.check()
                operation = await self.ask(request)
                if operation is not None and operation.outcome is Outcome.OK:
                    return operation
                await asyncio.sleep(PAUSE_SECONDS)

    async def compact(self, revision: int) -> None:
        if revision > 0 and await self.ask(Compact(revision)) is not None:
            self.mix.compacted = max(self.mix.compacted, revision)

    # --- one client's calls ---------------------------------------------------------------------

    def _fill_all(self) -> None:
        for number in range(len(self._lines)):
            self._fill(number)

    def _fill(self, number: int) -> None:
        """Have every idle client of a connection make its next call."""
        line = self._lines[number]
        if line is None or line.is_lost:
            return
        waiting, self._idle[number] = self._idle[number], []
        for client in waiting:
            self._next(number, line, client)

    def _next(self, number: int, line: CallConnection, client: int) -> None:
        is_time = self._issued >= self._few_until or client < FEW_CLIENTS
        if not self._running or not is_time or line.is_lost:
            self._idle[number].append(client)
            return
        self._issued += 1
        if self._issued == self._few_until:
            asyncio.get_running_loop().call_soon(self._fill_all)

        def on_end(operation: Operation) -> None:
            if operation.outcome is Outcome.UNKNOWN:
                self._idle[number].append(client)
                asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._fill, number)
            else:
                self._next(number, line, client)

        self._send(line, client, self.mix.request(client), on_end)

    def _send(
        self, line: CallConnection, client: int, request: Request, then: Callable[[Operation], object]
    ) -> None:
        self._under_way += 1
        call = perf_counter()

        def on_end(message: bytes, code: int, text: str, now: float) -> None:
            self._under_way -= 1
            operation = self._operation(client, call, now, request, message, code, text)
            self.operations.append(operation)
            then(operation)

        line.call(METHODS[type(request)], encode(request), on_end)

    def _operation(
        self, client: int, call: float, now: float, request: Request, message: bytes, code: int, text: str
    ) -> Operation:
        if code == Code.OK:
            answer, revision, member = self._reader.read(request, message)
            self.mix.learn(request, answer, revision)
            source = member if is_serializable(request) else 0
            return Operation(client, call, now, Outcome.OK, request, revision, answer, source)
        outcome, refusal = outcome_of_error(code, text)
        self.errors[f"{outcome.name.lower()}: {text}"[:100]] += 1
        return Operation(client, call, now, outcome, request, 0, refusal)

    # --- connections ----------------------------------------------------------------------------

    async def _keep_connected(self, number: int) -> None:
        endpoint = self._endpoints[number % len(self._endpoints)]
        while True:
            try:
                line = await connect(endpoint)
            except OSError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._lines[number] = line
            self._fill(number)
            with suppress(Exception):
                await asyncio.shield(line.lost)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for line in self._lines:
                if line is not None and not line.is_lost:
                    line.give_up(perf_counter() - DEADLINE_SECONDS)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    def check(self) -> None:
        """Raises RuntimeError if the clients' own machinery has failed: they would be silent for ever."""
        if self._failure is not None:
            raise RuntimeError("the clients' machinery has failed") from self._failure


class Truth:
    """Every event from the first revision on."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = endpoints
        self.events: list[Event] = []
        self.revision = 1
        """Everything up to here has arrived."""
        self.breaks = 0
        self.gone = 0
        """The compact revision that took what had not arrived yet; 0 while all is well."""
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def reached(self, revision: int) -> None:
        """Raises TimeoutError after some minutes, and RuntimeError if it can never be reached."""
        async with asyncio.timeout(REST_SECONDS_MAX):
            while self.revision < revision:
                if self.gone:
                    raise RuntimeError(f"history up to {self.gone} was compacted, seen up to {self.revision}")
                assert self._task is not None
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    async def _follow(self) -> None:
        attempt = 0
        while True:
            endpoint = self._endpoints[attempt % len(self._endpoints)]
            attempt += 1
            create = rpc.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=self.revision + 1)
            message = rpc.WatchRequest(create_request=create).SerializeToString()
            try:
                stream = await open_stream(endpoint, "/etcdserverpb.Watch/Watch", message, self._take)
            except OSError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                await self._until_silent(stream.lost)
            finally:
                stream.close()
            self.breaks += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _until_silent(self, lost: asyncio.Future[None]) -> None:
        """A gateway that stands still keeps its connections: after some silence, try another one."""
        seen = -1
        while not lost.done() and seen != self.revision:
            seen = self.revision
            with suppress(Exception):
                async with asyncio.timeout(2 * DEADLINE_SECONDS):
                    await asyncio.shield(lost)

    def _take(self, message: bytes, now: float) -> None:
        response = rpc.WatchResponse.FromString(message)
        if response.compact_revision:
            self.gone = response.compact_revision
        events = [event_of(event, now) for event in response.events]
        if events:
            self.events += events
            self.revision = events[-1].revision
