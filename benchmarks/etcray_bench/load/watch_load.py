"""Some writers, many watchers of everything they write: how many events arrive, and how soon.

A closed loop: a writer sends its next put when its last one is answered and every watcher has its event.
So nobody can fall behind, and the rate is one that every watcher keeps up with. The latency of a
delivery runs from handing the put to the socket until the event's bytes were read.

Nobody else writes, so every revision is one event, and each watcher must get revision after revision,
from the first put to the last. That is checked for every event as it comes; an event that is missing,
repeated, out of order or altered ends the run with `CheckFailedError`.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from etcray.client import Client
from etcray_bench.load import watch_decoding
from etcray_bench.load.closed_loop import DRAIN_SECONDS_MAX, CheckFailedError, percentiles
from etcray_bench.load.connection import Connection, LogicalClient
from etcray_bench.load.streaming import OpenStream, connect, connect_streams, hold
from etcray_bench.load.workloads import KeySpace, Workload

WATCH_METHOD: Final = "/etcdserverpb.Watch/Watch"
TAILS_KEPT: Final = 4096
CREATE_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLoad:
    """What to run."""

    endpoints: Sequence[str]
    watchers: int
    writers: int
    watchers_per_stream: int = 1
    connections: int = 9
    seconds: float = 5.0
    warmup_seconds: float = 1.0
    value_bytes: int = 256
    keys: int = 1_000
    prefix: bytes = b"watched/"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """What came out. Latencies in milliseconds, over all deliveries of the measured time, exact."""

    watchers: int
    writers: int
    events: int
    seconds: float
    events_per_second: float
    puts_per_second: float
    latency_ms: dict[str, float]
    generator_cpu_us_per_event: float
    events_checked: int
    """In the whole run: every watcher's every event."""


class Writer(LogicalClient):
    """Its put is over when nothing is `missing`: neither the answer nor any watcher's event."""

    __slots__ = ("missing",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.missing = 0


class Batch:
    """Decoded events that follow each other without a gap, and when their puts were sent."""

    __slots__ = ("first", "last", "starts", "writers")

    def __init__(self, first: int, writers: list[Writer], starts: list[float]) -> None:
        self.first = first
        self.last = first + len(writers) - 1
        self.writers = writers
        self.starts = starts


class StreamReader:
    """The watchers of one stream; number i has watch id i."""

    __slots__ = ("_load", "positions", "stream")

    def __init__(self, load: Delivery, watchers: int, revision: int) -> None:
        self._load = load
        self.positions = [revision] * watchers
        """The last revision that each watcher has got."""
        self.stream: OpenStream | None = None

    def received(self, message: bytes, now: float) -> None:
        watch_id, tail = watch_decoding.split(message)
        batch = self._load.batches.get(tail)
        if batch is None:
            if not watch_decoding.has_events(tail):
                self._load.control(tail)
                return
            batch = self._load.decode(tail)
        if batch.first != self.positions[watch_id] + 1:
            raise CheckFailedError(
                f"watcher {watch_id} has got up to {self.positions[watch_id]}, and now {batch.first}"
            )
        self.positions[watch_id] = batch.last
        self._load.delivered(batch, now)


class Delivery:
    """Runs one load. `at_edge` is called at the first and the last moment of the measured time."""

    def __init__(self, load: WatchLoad, revision: int, at_edge: Callable[[], None]) -> None:
        self._load = load
        self._revision = revision
        self._at_edge = at_edge
        space = KeySpace(load.prefix, max(load.keys, load.writers), load.writers, load.value_bytes)
        self._workload = Workload("put", space)
        self.writers = [Writer(number) for number in range(load.writers)]
        self.batches: dict[bytes, Batch] = {}
        self.readers: list[StreamReader] = []
        self._uncreated = load.watchers
        loop = asyncio.get_running_loop()
        self._created: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] = loop.create_future()
        self._put_connection: Connection | None = None
        self._since = math.inf
        self._stopping = False
        self._active = 0
        self._events = 0
        self._latencies = array("d")

    # --- what the connections tell ---------------------------------------------------------------

    def control(self, tail: bytes) -> None:
        if not watch_decoding.is_creation(tail):
            raise CheckFailedError(f"a watcher was told: {tail!r}")
        self._uncreated -= 1
        if self._uncreated == 0:
            self._created.set_result(None)

    def decode(self, tail: bytes) -> Batch:
        """Check that the events are whole, and each the one that its writer waits for."""
        events = watch_decoding.decode(tail)
        writers = []
        space = self._workload.space
        for number, (revision, key, value) in enumerate(events):
            who, sequence = watch_decoding.read_stamp(value)
            writer = self.writers[who]
            if revision != events[0][0] + number or sequence != writer.sequence - 1:
                raise CheckFailedError(f"event {revision}: put {sequence} of writer {who} is not expected")
            if (key, len(value)) != (space.key(who, sequence), space.value_bytes):
                raise CheckFailedError(f"event {revision}: {key!r}, {len(value)} bytes")
            writers.append(writer)
        batch = Batch(events[0][0], writers, [writer.started for writer in writers])
        if len(self.batches) >= TAILS_KEPT:
            del self.batches[next(iter(self.batches))]
        self.batches[tail] = batch
        return batch

    def delivered(self, batch: Batch, now: float) -> None:
        if now >= self._since:
            self._events += len(batch.writers)
            for start in batch.starts:
                if start >= self._since:
                    self._latencies.append(now - start)
        for writer in batch.writers:
            writer.missing -= 1
            if not writer.missing:
                self._next_put(writer)

    def _answered(self, client: LogicalClient, now: float, error: str | None) -> None:
        if error is not None:
            raise CheckFailedError(f"a put failed: {error}")
        assert isinstance(client, Writer), f"client {client.number} does not write"
        client.missing -= 1
        if not client.missing:
            asyncio.get_running_loop().call_soon(self._next_put, client)

    def _next_put(self, writer: Writer) -> None:
        assert self._put_connection is not None, "a put before there is a connection"
        if self._stopping:
            self._active -= 1
            if self._active == 0:
                self._drained.set_result(None)
            return
        message = self._workload.message(writer.number, writer.sequence)
        writer.sequence += 1
        writer.missing = 1 + self._load.watchers
        self._put_connection.begin(writer, message)

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> WatchResult:
        load = self._load
        streams = await connect_streams(load.endpoints, load.connections, WATCH_METHOD)
        self._put_connection = await connect(load.endpoints[0], self._workload.method, self._answered)
        connections = [*streams, self._put_connection]
        try:
            for number in range(math.ceil(load.watchers / load.watchers_per_stream)):
                count = min(load.watchers_per_stream, load.watchers - number * load.watchers_per_stream)
                reader = StreamReader(self, count, self._revision)
                self.readers.append(reader)
                reader.stream = streams[number % len(streams)].open(reader)
                for _ in range(count):
                    end = load.prefix[:-1] + bytes((load.prefix[-1] + 1,))
                    reader.stream.send(watch_decoding.creation(load.prefix, end, self._revision + 1))
            await hold(connections, self._created, CREATE_SECONDS_MAX)
            if not self._created.done():
                raise CheckFailedError(f"{self._uncreated} watchers were not created")
            self._active = len(self.writers)
            for writer in self.writers:
                self._next_put(writer)
            await hold(connections, self._drained, load.warmup_seconds)
            self._at_edge()
            self._since = started = time.perf_counter()
            cpu_started = time.process_time()
            await hold(connections, self._drained, load.seconds)
            self._since = math.inf
            elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
            self._at_edge()
            self._stopping = True
            await hold(connections, self._drained, DRAIN_SECONDS_MAX)
        finally:
            for connection in connections:
                connection.close()
        return self._result(elapsed, cpu, self._check())

    def _check(self) -> int:
        """Every watcher has got every put; returns how many events that were."""
        puts = sum(writer.sequence for writer in self.writers)
        behind = sum(
            position != self._revision + puts for reader in self.readers for position in reader.positions
        )
        if behind or not puts:
            raise CheckFailedError(f"{behind} watchers have not got all of {puts} puts")
        return puts * self._load.watchers

    def _result(self, seconds: float, cpu_seconds: float, checked: int) -> WatchResult:
        rate = self._events / seconds
        return WatchResult(
            watchers=self._load.watchers,
            writers=self._load.writers,
            events=self._events,
            seconds=seconds,
            events_per_second=rate,
            puts_per_second=rate / self._load.watchers,
            latency_ms=percentiles(self._latencies),
            generator_cpu_us_per_event=cpu_seconds / max(1, self._events) * 1e6,
            events_checked=checked,
        )


def run_watch_load(load: WatchLoad, at_edge: Callable[[], None] = lambda: None) -> WatchResult:
    """Run and check one load, on a store to which nobody else writes; raises CheckFailedError."""
    with Client(load.endpoints, timeout=30.0) as client:
        revision = client.get_prefix(load.prefix, count_only=True).revision

    async def run() -> WatchResult:
        return await Delivery(load, revision, at_edge).run()

    return uvloop.run(run())
