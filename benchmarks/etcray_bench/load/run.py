"""One load, from an empty store to a checked result; in this process, or in parts.

A part is a share of the clients (every n-th), with a ledger and a recording of its own. `run_load` does it
all; who has generators on several machines calls `prepare` once, `run_part` everywhere with the same
`start_at`, and `conclude` with what they return.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
import uvloop

from etcray.client import Client
from etcray_bench.load.bulk import empty_and_preload, revoke_all
from etcray_bench.load.check import CHECK_SECONDS_MAX, Checked, check_keys, check_leases
from etcray_bench.load.driver import DRAIN_SECONDS_MAX, Driver
from etcray_bench.load.errors import LoadError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.kubernetes import Watchers, check_changes
from etcray_bench.load.ledger import Ledger, LedgerState
from etcray_bench.load.options import Load
from etcray_bench.load.recorder import Recorder, Recording
from etcray_bench.load.result import LoadResult, together
from etcray_bench.load.watch_load import Delivery
from etcray_bench.load.workloads import make_workload

PROGRESS_SECONDS: Final = 0.25


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is."""

    phase: str
    """preload, warm-up, run, drain or check."""
    seconds: float = 0.0
    """Since the phase began."""
    of_seconds: float = 0.0
    operations: int = 0
    """So far, of all phases; in the preload: keys."""
    operations_per_second: float = 0.0
    p99_ms: float = 0.0
    """Since the last report."""
    failures: int = 0
    """So far."""


OnEdge = Callable[[], None]
OnProgress = Callable[[Progress], None]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the store when the load begins."""

    ledger: LedgerState
    revision: int
    """The store's."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one process did."""

    recording: Recording
    ledger: LedgerState
    conflicts: int
    events: int
    """That its watchers got, altogether."""
    changes: list[tuple[int, int, int]]
    """Revision, key and stamp of those events, once."""


def ignore_edge() -> None:
    """Nobody samples."""


def ignore_progress(progress: Progress) -> None:
    """Nobody looks."""


def prepare(load: Load, on_progress: OnProgress = ignore_progress) -> Prepared:
    """Empty the store and write what the load will find."""
    ledger = Ledger(load.keys)
    started = time.perf_counter()

    def on_keys(keys: int) -> None:
        seconds = time.perf_counter() - started
        on_progress(
            Progress(phase="preload", seconds=seconds, operations=keys, operations_per_second=keys / seconds)
        )

    revision = uvloop.run(empty_and_preload(load, ledger, on_keys))
    return Prepared(ledger=ledger.state(), revision=revision)


def run_part(
    load: Load,
    prepared: Prepared,
    part: int = 0,
    parts: int = 1,
    *,
    start_at: float | Callable[[], float] | None = None,
    on_edge: OnEdge = ignore_edge,
    on_progress: OnProgress = ignore_progress,
) -> Part:
    """Run every `parts`-th client, beginning with the `part`-th. It connects, then begins at `start_at` (in
    seconds since 1970, or what a function returns that is called once all is connected)."""

    async def run() -> Part:
        return await PartRun(load, prepared, part, parts, on_edge, on_progress).run(start_at)

    return uvloop.run(run())


class Engine(Protocol):
    """What makes the requests of one part."""

    recorder: Recorder
    connections_lost: int
    broken: asyncio.Future[None]
    """Done when the run cannot go on, with the reason."""
    drained: asyncio.Future[None]
    """Done when it was stopped and all that was under way is over."""

    @property
    def conflicts(self) -> int: ...
    async def connect(self) -> None: ...
    def begin(self, start: float) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class PartRun:
    """The course of one part. Create it in a running loop."""

    def __init__(
        self, load: Load, prepared: Prepared, part: int, parts: int, on_edge: OnEdge, on_progress: OnProgress
    ) -> None:
        self._load = load
        self._on_edge = on_edge
        self._on_progress = on_progress
        self._ledger = Ledger.continued(prepared.ledger)
        self._engine: Engine
        self._delivery: Delivery | None = None
        self._watchers: Watchers | None = None
        if load.workload == "watch":
            self._engine = self._delivery = Delivery(load, self._ledger, prepared.revision)
            return
        driver = Driver(load, range(part, load.clients, parts), part, parts)
        driver.workload = make_workload(load, self._ledger, part, parts, driver.clients)
        self._engine = driver
        if load.workload == "kubernetes" and part == 0:
            self._watchers = Watchers(load, self._ledger)

    async def run(self, start_at: float | Callable[[], float] | None) -> Part:
        engine, load = self._engine, self._load
        try:
            await engine.connect()
            if self._watchers is not None:
                await self._watchers.connect()
            at = start_at() if callable(start_at) else start_at
            if at is not None:
                await asyncio.sleep(max(0.0, at - time.time()))
            engine.begin(time.perf_counter())
            await self._hold("warm-up", load.warmup_seconds)
            self._on_edge()
            recorder = engine.recorder
            started_at, started, cpu_started = time.time(), time.perf_counter(), time.process_time()
            recorder.begin(started, load.seconds)
            await self._hold("run", load.seconds)
            recorder.until = ended = time.perf_counter()
            cpu = time.process_time() - cpu_started
            self._on_edge()
            engine.stop()
            await self._hold("drain", DRAIN_SECONDS_MAX, until=engine.drained)
            if not engine.drained.done():
                raise LoadError(f"operations were still under way {DRAIN_SECONDS_MAX} s after the end")
            if self._watchers is not None:
                await self._watchers.finish()
            if self._delivery is not None:
                self._delivery.check()
        finally:
            engine.close()
            if self._watchers is not None:
                self._watchers.close()
        watching = self._watchers or self._delivery
        return Part(
            recording=_recording(
                recorder, ended - started, started_at, started, cpu, engine.connections_lost
            ),
            ledger=self._ledger.state(),
            conflicts=engine.conflicts,
            events=0 if watching is None else watching.events,
            changes=[] if self._watchers is None else self._watchers.changes,
        )

    async def _hold(self, phase: str, seconds: float, until: asyncio.Future[None] | None = None) -> None:
        """Let it run, and say how it goes on; raises what breaks it off."""
        began = last = time.perf_counter()
        recorder = self._engine.recorder
        counted = recorder.total
        breaks = [self._engine.broken]
        if self._watchers is not None:
            breaks.append(self._watchers.broken)
        waited = breaks if until is None else [*breaks, until]
        while (left := began + seconds - time.perf_counter()) > 0:
            done, _ = await asyncio.wait(
                waited, timeout=min(left, PROGRESS_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            if done:
                return
            now = time.perf_counter()
            rate, counted = (recorder.total - counted) / (now - last), recorder.total
            last = now
            self._on_progress(
                Progress(
                    phase=phase,
                    seconds=now - began,
                    of_seconds=seconds,
                    operations=recorder.total,
                    operations_per_second=rate,
                    p99_ms=_p99_ms(recorder.take_recent()),
                    failures=sum(recorder.failures.values()),
                )
            )


def _p99_ms(latencies: list[float]) -> float:
    latencies.sort()
    return latencies[int(len(latencies) * 0.99)] * 1e3 if latencies else 0.0


def _recording(
    recorder: Recorder, seconds: float, started_at: float, started: float, cpu: float, lost: int
) -> Recording:
    return Recording(
        seconds=seconds,
        started_at=started_at,
        started_monotonic=started,
        requests=recorder.requests,
        latencies=recorder.latencies,
        services=recorder.services,
        completions=recorder.completions,
        worst_seconds=recorder.worst,
        failed=recorder.failed,
        failures=dict(recorder.failures),
        unstarted=recorder.unstarted,
        connections_lost=lost,
        cpu_seconds=cpu,
    )


def conclude(
    load: Load, prepared: Prepared, parts: Sequence[Part], on_progress: OnProgress = ignore_progress
) -> LoadResult:
    """Put the parts together and check the store; raises CheckFailedError."""
    on_progress(Progress(phase="check"))
    ledger = Ledger.merged([prepared.ledger, *(part.ledger for part in parts)])
    checked = check(load, ledger)
    if load.workload == "kubernetes":
        check_changes(ledger, parts[0].changes)
    checked = msgspec.structs.replace(checked, events=sum(part.events for part in parts))
    uvloop.run(revoke_all(load, ledger.leases - ledger.revoked - ledger.uncertain_leases))
    return together(load, [part.recording for part in parts], checked, sum(part.conflicts for part in parts))


def check(load: Load, ledger: Ledger) -> Checked:
    """Compare the store with what was acknowledged; raises CheckFailedError."""
    space = KeySpace(load.prefix.encode(), load.key_bytes)
    with Client(load.endpoints, timeout=CHECK_SECONDS_MAX) as client:
        checked = check_keys(client, space, Values(load), ledger)
        if load.has_leases:
            checked = msgspec.structs.replace(checked, leases=check_leases(client, ledger))
    return checked


def run_load(
    load: Load, on_edge: OnEdge = ignore_edge, on_progress: OnProgress = ignore_progress
) -> LoadResult:
    """Prepare, run and check one load. `on_edge` is called at the first and at the last moment of the
    measured time, `on_progress` a few times a second. Raises LoadError, of which CheckFailedError is one."""
    prepared = prepare(load, on_progress)
    if load.processes == 1:
        parts = [run_part(load, prepared, on_edge=on_edge, on_progress=on_progress)]
    else:
        from etcray_bench.load.processes import run_parts

        parts = run_parts(load, prepared, on_edge, on_progress)
    return conclude(load, prepared, parts, on_progress)
