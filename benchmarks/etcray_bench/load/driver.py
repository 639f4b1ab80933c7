"""Runs the operations of one process: closed loop or open loop, on connections that may be lost.

Closed loop: each client begins its next operation when its last one is done. Open loop: operations are
meant to begin at moments of a schedule; each takes a free client, or waits for one.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from etcray_bench.load.arrivals import Alarm, Schedule, schedule_for
from etcray_bench.load.connection import Call
from etcray_bench.load.errors import CheckFailedError, ConnectError, LoadError, RequestFailedError
from etcray_bench.load.messages import LEASE_KEEP_ALIVE
from etcray_bench.load.operations import Steps
from etcray_bench.load.options import Load
from etcray_bench.load.recorder import Recorder
from etcray_bench.load.streaming import OpenStream, StreamConnection, connect
from etcray_bench.load.workloads import Workload

PAUSE_AFTER_FAILURE_SECONDS: Final = 0.05
RECONNECT_SECONDS: Final = 0.1
SWEEP_SECONDS: Final = 0.1
DRAIN_SECONDS_MAX: Final = 30.0
BACKLOG_MAX: Final = 1_000_000
"""Operations of an open loop that wait for a client."""


class LogicalClient(Call):
    """One client: has one operation under way, or none."""

    __slots__ = ("_driver", "_name", "_steps", "_stream", "intended", "link", "number", "sent", "sequence")

    def __init__(self, number: int, driver: Driver | None = None) -> None:
        super().__init__()
        self.number = number
        self.sequence = 0
        """Of the next value that it writes."""
        self.link: Link | None = None
        self.intended = 0.0
        self.sent = 0.0
        self._driver = driver
        self._name = ""
        self._steps: Steps | None = None
        self._stream: KeepAliveStream | None = None

    def start(self, intended: float) -> None:
        """Begin the workload's next operation; `intended` is 0 in a closed loop."""
        driver = self._driver
        assert driver is not None, f"client {self.number} has nobody who runs it"
        self._name, self._steps = driver.workload.next(self)
        self.sent = now = time.perf_counter()
        self.intended = intended or now
        path, message = next(self._steps)
        self._send(path, message)

    def _send(self, path: str, message: bytes) -> None:
        assert self.link is not None, "sent without a link"
        connection = self.link.connection
        assert connection is not None, "sent without a connection"
        if path != LEASE_KEEP_ALIVE:
            connection.begin(self, path, message)
            return
        if self._stream is None or self._stream.connection is not connection:
            self._stream = KeepAliveStream(self, connection)
            self.link.streaming.add(self)
        self._stream.send(message)

    def answered(self, message: bytes, now: float) -> None:
        driver, steps = self._driver, self._steps
        assert driver is not None, f"client {self.number} has nobody who runs it"
        assert steps is not None, f"client {self.number} waits for nothing"
        if driver.recorder.since <= now < driver.recorder.until:
            driver.recorder.requests += 1
        try:
            path, following = steps.send(message)
        except StopIteration:
            driver.recorder.completed(self._name, self.intended, self.sent, now)
            driver.free(self)
        except CheckFailedError as error:
            driver.break_off(error)
        except (ValueError, IndexError) as error:  # An answer that is no such message, or lacks a part.
            driver.break_off(CheckFailedError(f"an answer to {self._name} makes no sense: {error}"))
        else:
            self._send(path, following)

    def failed(self, error: str, now: float) -> None:
        driver, steps = self._driver, self._steps
        assert driver is not None, f"client {self.number} has nobody who runs it"
        assert steps is not None, f"client {self.number} waits for nothing"
        self._steps = None
        with suppress(RequestFailedError):
            steps.throw(RequestFailedError(error))
        driver.recorder.failure(error, now)
        driver.free_after_pause(self)

    def stream_lost(self, error: str, now: float) -> None:
        """The connection of its stream is lost; if it waited for an answer there, there is none."""
        stream, self._stream = self._stream, None
        if stream is not None and stream.is_waiting:
            stream.is_waiting = False
            self.failed(error, now)

    def expire(self, sent_before: float, error: str, now: float) -> None:
        """Give up a renewal that was sent before then, and its stream."""
        if self._stream is not None and self._stream.is_waiting and self._stream.sent < sent_before:
            self.stream_lost(error, now)


class KeepAliveStream:
    """A client's stream of renewals; one is under way at a time."""

    def __init__(self, client: LogicalClient, connection: StreamConnection) -> None:
        self.connection = connection
        self.is_waiting = False
        self.sent = 0.0
        self._client = client
        self._stream: OpenStream = connection.open(LEASE_KEEP_ALIVE, self)

    def send(self, message: bytes) -> None:
        self.is_waiting = True
        self.sent = time.perf_counter()
        self._stream.send(message)

    def received(self, message: bytes, now: float) -> None:
        if self.is_waiting:
            self.is_waiting = False
            self._client.answered(message, now)


class Link:
    """A place for a connection, which is made again when it is lost, to the next endpoint in turn."""

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver = driver
        self._number = number
        self.connection: StreamConnection | None = None
        self.streaming: set[LogicalClient] = set()
        self.waiting: deque[tuple[LogicalClient, float]] = deque()
        """Clients that shall begin an operation when there is a connection again."""

    async def connect(self) -> None:
        endpoints = self._driver.load.endpoints
        connection = await connect(endpoints[self._number % len(endpoints)])
        self.connection = connection
        connection.lost.add_done_callback(self._lost)

    def _lost(self, lost: asyncio.Future[None]) -> None:
        self.connection = None
        error = lost.exception()
        streaming, self.streaming = self.streaming, set()
        for client in streaming:
            client.stream_lost(f"connection lost: {error}", time.perf_counter())
        if error is not None:
            self._driver.link_lost(self, error)

    async def reconnect(self) -> None:
        while True:
            self._number += 1
            try:
                await self.connect()
                break
            except ConnectError:
                await asyncio.sleep(RECONNECT_SECONDS)
        waiting, self.waiting = self.waiting, deque()
        for client, intended in waiting:
            self._driver.start(client, intended)


class Driver:
    """Drives a number of clients. Create it in a running loop."""

    workload: Workload
    """Set before it begins."""

    def __init__(self, load: Load, clients: Sequence[int], part: int, parts: int) -> None:
        self.load = load
        self.recorder = Recorder(is_open=load.rate is not None)
        self.connections_lost = 0
        self.clients = [LogicalClient(number, self) for number in clients]
        wanted = min(len(clients), max(math.ceil(len(load.endpoints) / parts), load.connections // parts))
        self._links = [Link(self, part + parts * number) for number in range(wanted)]
        for number, client in enumerate(self.clients):
            client.link = self._links[number % wanted]
        self._rate = None if load.rate is None else load.rate / parts
        self._generator = random.Random(f"arrivals/{load.seed}/{part}/{parts}")
        self._loop = asyncio.get_running_loop()
        self._idle = list(reversed(self.clients))
        self._backlog: deque[float] = deque()
        self._schedule: Schedule | None = None
        self._alarm: Alarm | None = None
        self._stopping = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Done when the run cannot go on, with the reason."""
        self.drained: asyncio.Future[None] = self._loop.create_future()

    @property
    def conflicts(self) -> int:
        return self.workload.operations.conflicts

    async def connect(self) -> None:
        for link in self._links:
            await link.connect()
            connection = link.connection
            _, most = self.load.value_sizes
            if connection is not None and most * 2 >= connection.stream_credit:
                raise LoadError(
                    f"values of {most} bytes are too large: the server lets a client send"
                    f" {connection.stream_credit} bytes at once"
                )

    # --- operations ---------------------------------------------------------------------------------

    def begin(self, start: float) -> None:
        """Let it run from that moment on (by perf_counter)."""
        self._sweep()
        if self._rate is None:
            clients, self._idle = self._idle, []
            for client in reversed(clients):
                self.start(client, 0.0)
            return
        self._schedule = schedule_for(self._rate, self.load.arrivals, start, self._generator)
        self._alarm = Alarm(self._loop, self._arrive)
        self._alarm.set(self._schedule.next)

    def start(self, client: LogicalClient, intended: float) -> None:
        """Begin its next operation, as soon as there is a connection."""
        assert client.link is not None, f"client {client.number} has no link"
        if self._stopping:
            self.free(client)
            return
        if client.link.connection is None:
            client.link.waiting.append((client, intended))
            return
        try:
            client.start(intended)
        except (CheckFailedError, ValueError) as error:
            self.break_off(error)

    def _arrive(self) -> None:
        """Begin all operations whose moment has come."""
        schedule, alarm = self._schedule, self._alarm
        assert schedule is not None, "an arrival without a schedule"
        assert alarm is not None, "an arrival without an alarm"
        now = time.perf_counter()
        while schedule.next <= now and not self._stopping:
            if self._idle:
                self.start(self._idle.pop(), schedule.next)
            elif len(self._backlog) < BACKLOG_MAX:
                self._backlog.append(schedule.next)
            else:
                self.break_off(
                    LoadError(f"{BACKLOG_MAX} operations wait for a client: --rate is far too high")
                )
                return
            schedule.step()
        if not self._stopping:
            alarm.set(schedule.next)

    def free(self, client: LogicalClient) -> None:
        """Its operation is over."""
        if self._stopping:
            self._idle.append(client)
            self._look_whether_drained()
        elif self._rate is None:
            self.start(client, 0.0)
        elif self._backlog:
            self.start(client, self._backlog.popleft())
        else:
            self._idle.append(client)

    def free_after_pause(self, client: LogicalClient) -> None:
        """So that a store that refuses everything is not asked as fast as possible."""
        self._loop.call_later(PAUSE_AFTER_FAILURE_SECONDS, self.free, client)

    # --- faults -------------------------------------------------------------------------------------

    def link_lost(self, link: Link, error: BaseException) -> None:
        self.connections_lost += 1
        if not self.load.tolerate_failures:
            self.break_off(
                error if isinstance(error, LoadError) else LoadError(f"a connection was lost: {error}")
            )
            return
        task = self._loop.create_task(link.reconnect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def break_off(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    def _sweep(self) -> None:
        """Give up what takes too long."""
        limit = self.load.request_seconds_max
        error = f"no answer within {limit:g} s"
        now = time.perf_counter()
        for link in self._links:
            if link.connection is not None:
                link.connection.expire(now - limit, error)
            for client in tuple(link.streaming):
                client.expire(now - limit, error, now)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    # --- the end ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more; `drained` is done when all that is under way is over."""
        self._stopping = True
        now = time.perf_counter()
        for intended in self._backlog:
            self.recorder.never_began(intended, now)
        self._backlog.clear()
        for link in self._links:
            for client, intended in link.waiting:
                if self._rate is not None:
                    self.recorder.never_began(intended, now)
                self._idle.append(client)
            link.waiting.clear()
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if len(self._idle) == len(self.clients) and not self.drained.done():
            self.drained.set_result(None)

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        for link in self._links:
            if link.connection is not None:
                link.connection.close()
