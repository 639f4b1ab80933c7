"""Drives one workload against running members and says how fast and how quick they were.

    python -m etcray_bench.load.closed_loop --endpoint 127.0.0.1:2379 --workload put --clients 64 --seconds 10

A closed loop: each logical client sends its next request when the last one is answered. After a
warm-up, what is answered within the measured time counts. Then every client finishes its last request
and the store is checked: the number of keys, and a sample of values against the last acknowledged
write of each. A run that fails the check is a failed run, whatever its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Final

import uvloop

from etcray.client import Client, Put
from etcray_bench.load.connection import Connection, LogicalClient
from etcray_bench.load.frames import RequestHeaders
from etcray_bench.load.workloads import WORKLOADS, KeySpace, Workload, WorkloadName

PRELOAD_TXN_PUTS: Final = 100
PRELOAD_TXN_BYTES: Final = 2**20
SAMPLE_KEYS: Final = 200
CONNECT_SECONDS_MAX: Final = 5.0
DRAIN_SECONDS_MAX: Final = 30.0


class CheckFailedError(Exception):
    """The store does not hold what its clients were told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to run."""

    endpoints: Sequence[str]
    workload: WorkloadName
    clients: int = 64
    connections: int = 8
    seconds: float = 10.0
    warmup_seconds: float = 2.0
    value_bytes: int = 256
    keys: int = 10_000
    prefix: bytes = b"bench/"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What came out. Latencies in milliseconds, over all requests of the measured time, exact."""

    workload: str
    clients: int
    requests: int
    failures: int
    first_failure: str | None
    seconds: float
    requests_per_second: float
    latency_ms: dict[str, float]
    generator_cpu_us_per_request: float
    keys_checked: int


@dataclass(slots=True)
class Measurement:
    """What is counted from `since` on."""

    since: float = math.inf
    stopping: bool = False
    requests: int = 0
    """Answered within the measured time."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Of those that were also sent within it: what came before may have waited for the sampling."""
    failures: int = 0
    first_failure: str | None = None


class Generator:
    """Runs one load. `at_edge` is called at the first and the last moment of the measured time."""

    def __init__(self, load: Load, at_edge: Callable[[], None]) -> None:
        self._at_edge = at_edge
        self._load = load
        self.space = KeySpace(load.prefix, max(load.keys, load.clients), load.clients, load.value_bytes)
        self._workload = Workload(load.workload, self.space)
        self.clients = [LogicalClient(number) for number in range(load.clients)]
        self._active = 0
        self._measurement = Measurement()
        self._drained: asyncio.Event = asyncio.Event()

    def _next_message(self, client: LogicalClient, now: float, error: str | None) -> bytes | None:
        measurement = self._measurement
        if error is None and client.answer_bytes < self._workload.answer_bytes_min:
            error = f"an answer of {client.answer_bytes} bytes without the pair that was asked for"
        if error is not None:
            client.failures += 1
            measurement.failures += 1
            measurement.first_failure = measurement.first_failure or error
        elif now >= measurement.since:
            measurement.requests += 1
            if client.started >= measurement.since:
                measurement.latencies.append(now - client.started)
        if measurement.stopping:
            self._active -= 1
            if self._active == 0:
                self._drained.set()
            return None
        return self._message(client)

    def _message(self, client: LogicalClient) -> bytes:
        message = self._workload.message(client.number, client.sequence)
        client.sequence += 1
        return message

    async def run(self) -> LoadResult:
        connections = await self._connect()
        try:
            for client in self.clients:
                self._active += 1
                connections[client.number % len(connections)].begin(client, self._message(client))
            await self._hold(connections, self._load.warmup_seconds)
            self._at_edge()
            started, cpu_started = time.perf_counter(), time.process_time()
            self._measurement.since = started
            await self._hold(connections, self._load.seconds)
            self._measurement.since = math.inf
            elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
            self._at_edge()
            self._measurement.stopping = True
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await self._drained.wait()
        finally:
            for connection in connections:
                connection.close()
        return self._result(elapsed, cpu)

    async def _connect(self) -> list[Connection]:
        load, loop = self._load, asyncio.get_running_loop()
        wanted = max(len(load.endpoints), min(load.clients, load.connections))
        connections = []
        for number in range(wanted):
            endpoint = load.endpoints[number % len(load.endpoints)]
            protocol = partial(
                Connection, RequestHeaders(self._workload.method, endpoint), self._next_message
            )
            host, _, port = endpoint.rpartition(":")
            _, connection = await loop.create_connection(protocol, host, int(port))
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await connection.ready
            assert load.value_bytes * 2 < connection.stream_credit, "values too large for one stream's credit"
            connections.append(connection)
        return connections

    async def _hold(self, connections: list[Connection], seconds: float) -> None:
        """Let the load run; raises as soon as a connection is lost."""
        lost = [connection.lost for connection in connections]
        done, _ = await asyncio.wait(lost, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()

    def _result(self, seconds: float, cpu_seconds: float) -> LoadResult:
        measured = self._measurement
        count = measured.requests
        return LoadResult(
            workload=self._load.workload,
            clients=self._load.clients,
            requests=count,
            failures=measured.failures,
            first_failure=measured.first_failure,
            seconds=seconds,
            requests_per_second=count / seconds,
            latency_ms=percentiles(measured.latencies),
            generator_cpu_us_per_request=cpu_seconds / max(1, count) * 1e6,
            keys_checked=0,
        )


def percentiles(latencies_seconds: array[float]) -> dict[str, float]:
    """In milliseconds, by nearest rank."""
    ranked = sorted(latencies_seconds)
    if not ranked:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {
        name: ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e3 for name, share in shares.items()
    }


def prepare(load: Load, space: KeySpace) -> None:
    """Delete what was there; if the load only reads, write every key once."""
    with Client(load.endpoints, timeout=30.0) as client:
        client.delete(load.prefix, prefix=True)
        if load.workload in ("put", "txn"):
            return
        filler = space.filler()
        pairs = [
            (space.key(owner, sequence), space.value(owner, sequence, filler))
            for owner in range(space.clients)
            for sequence in range(space.keys_per_client)
        ]
        step = max(1, min(PRELOAD_TXN_PUTS, PRELOAD_TXN_BYTES // space.value_bytes))
        for at in range(0, len(pairs), step):
            client.txn().then(*(Put(key, value) for key, value in pairs[at : at + step])).commit()


def check(load: Load, generator: Generator) -> int:
    """Compare the store with what the clients know; returns how many keys were compared.

    A client that saw a failure does not know whether that write was done, so its keys are not
    compared, only counted.
    """
    space = generator.space
    writes = load.workload in ("put", "txn")
    expected: list[tuple[bytes, bytes]] = []
    certain = True
    for owner in generator.clients:
        written = owner.sequence if writes else space.keys_per_client
        if owner.failures and writes:
            certain = False
        else:
            expected.extend(space.last_writes(owner.number, written))
    sample = random.Random(len(expected)).sample(expected, min(SAMPLE_KEYS, len(expected)))
    with Client(load.endpoints, timeout=30.0) as client:
        count = client.get_prefix(load.prefix, count_only=True).count
        if certain and count != len(expected):
            raise CheckFailedError(f"{len(expected)} keys were written, the store counts {count}")
        for key, value in sample:
            pair = client.get(key)
            if pair is None or pair.value != value:
                found = "nothing" if pair is None else repr(pair.value[:20])
                raise CheckFailedError(f"{key!r} was acknowledged as {value[:20]!r}, the store has {found}")
    return len(sample)


def run_load(load: Load, at_edge: Callable[[], None] = lambda: None) -> LoadResult:
    """Prepare, run and check one load; raises CheckFailedError."""

    async def run() -> tuple[Generator, LoadResult]:
        generator = Generator(load, at_edge)
        prepare(load, generator.space)
        return generator, await generator.run()

    generator, result = uvloop.run(run())
    return replace(result, keys_checked=check(load, generator))


def describe(result: LoadResult) -> str:
    latency = "  ".join(f"{name} {value:.2f}" for name, value in result.latency_ms.items())
    counts = f"{result.requests} requests in {result.seconds:.1f} s, {result.failures} failed"
    effort = f"generator {result.generator_cpu_us_per_request:.1f} us each"
    lines = [
        f"{result.workload}, {result.clients} clients: {result.requests_per_second:,.0f} requests/s",
        f"latency in ms: {latency}",
        f"{counts}, {result.keys_checked} keys checked, {effort}",
    ]
    if result.first_failure:
        lines.append(f"first failure: {result.first_failure}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m etcray_bench.load.closed_loop", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--endpoint", action="append", required=True, metavar="HOST:PORT", dest="endpoints")
    parser.add_argument("--workload", choices=WORKLOADS, default="put")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup-seconds", type=float, default=2.0)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--prefix", type=str.encode, default=b"bench/")
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    result = run_load(Load(**options))
    print(json.dumps(asdict(result)) if as_json else describe(result))


if __name__ == "__main__":
    main()
