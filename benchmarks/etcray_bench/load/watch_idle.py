"""Many watchers that nothing happens to: what each costs the servers in memory.

Every watcher has a key of its own. Memory is read before the first and after the last was created, when
it has come to rest; a few hundred were created before, so that what they need once is there already. At
the end some of the keys are written, and exactly their watchers must be told, or the run has failed.
Only the first run on fresh processes means something: later ones find memory that was freed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from etcray.client import Client
from etcray_bench.load import watch_decoding
from etcray_bench.load.errors import CheckFailedError
from etcray_bench.load.messages import WATCH
from etcray_bench.load.streaming import OpenStream, StreamConnection, connect_all, hold
from etcray_bench.load.watch_load import CREATE_SECONDS_MAX

WARM_UP_WATCHERS: Final = 500
CREATIONS_UNDER_WAY: Final = 100
"""Of one stream."""
SETTLE_SECONDS: Final = 3.0
SAMPLE_KEYS: Final = 50
LATE_SECONDS: Final = 0.5
"""So long an event that nobody wants is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleResult:
    watchers: int
    streams: int
    bytes_before: dict[str, int]
    """By process group."""
    bytes_after: dict[str, int]
    created_per_second: float
    events_checked: int


class IdleStream:
    """Creates its watchers a few at a time, then listens."""

    def __init__(self, watchers: Idle, connection: StreamConnection, keys: Sequence[bytes]) -> None:
        self._watchers = watchers
        self._keys = keys
        self._created = 0
        self._asked = 0
        self._stream: OpenStream = connection.open(WATCH, self)

    def begin(self) -> None:
        for _ in range(min(CREATIONS_UNDER_WAY, len(self._keys))):
            self._create_next()

    def _create_next(self) -> None:
        self._stream.send(watch_decoding.creation(self._keys[self._asked]))
        self._asked += 1

    def received(self, message: bytes, now: float) -> None:
        watch_id, tail = watch_decoding.split(message)
        if watch_decoding.has_events(tail):
            self._watchers.told.extend(
                (key, self._keys[watch_id]) for _, key, _ in watch_decoding.decode(tail)
            )
            return
        if not watch_decoding.is_creation(tail) or watch_id != self._created:
            raise CheckFailedError(f"watcher {self._created} was answered with {tail!r}, for {watch_id}")
        self._created += 1
        if self._asked < len(self._keys):
            self._create_next()
        elif self._created == len(self._keys):
            self._watchers.stream_done()


class Idle:
    """A number of watchers, dealt out to a number of streams."""

    def __init__(self, streams: int) -> None:
        self.told: list[tuple[bytes, bytes]] = []
        """Each event's key, and the key that its watcher watches."""
        self._undone = streams
        self._streams = streams
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, connections: Sequence[StreamConnection], keys: Sequence[bytes]) -> None:
        for number in range(self._streams):
            own = keys[number :: self._streams]
            IdleStream(self, connections[number % len(connections)], own).begin()

    def stream_done(self) -> None:
        self._undone -= 1
        if not self._undone:
            self.done.set_result(None)


def run_idle(
    endpoints: Sequence[str], watchers: int, streams: int, memory: Callable[[], dict[str, int]]
) -> IdleResult:
    """Create, measure and check; raises CheckFailedError."""
    assert 1 <= streams <= watchers, f"{watchers} watchers on {streams} streams"
    return uvloop.run(_run_idle(endpoints, watchers, streams, memory))


async def _run_idle(
    endpoints: Sequence[str], watchers: int, streams: int, memory: Callable[[], dict[str, int]]
) -> IdleResult:
    connections = await connect_all(endpoints, max(len(endpoints), streams))
    try:
        warm_up = Idle(min(streams, WARM_UP_WATCHERS))
        warm_up.begin(connections, [b"idle/warm-up/%08d" % number for number in range(WARM_UP_WATCHERS)])
        await hold(connections, warm_up.done, CREATE_SECONDS_MAX)
        await asyncio.sleep(SETTLE_SECONDS)
        before = memory()
        idle = Idle(streams)
        keys = [b"idle/%08d" % number for number in range(watchers)]
        started = time.perf_counter()
        idle.begin(connections, keys)
        await hold(connections, idle.done, CREATE_SECONDS_MAX)
        if not idle.done.done():
            raise CheckFailedError(f"{watchers} watchers were not created in {CREATE_SECONDS_MAX} s")
        elapsed = time.perf_counter() - started
        await asyncio.sleep(SETTLE_SECONDS)
        after = memory()
        checked = await _check(endpoints, idle, keys)
    finally:
        for connection in connections:
            connection.close()
    return IdleResult(
        watchers=watchers,
        streams=streams,
        bytes_before=before,
        bytes_after=after,
        created_per_second=watchers / elapsed,
        events_checked=checked,
    )


async def _check(endpoints: Sequence[str], idle: Idle, keys: Sequence[bytes]) -> int:
    """Write some of the keys: their watchers are told, and nobody else."""
    sample = random.Random(len(keys)).sample(keys, min(SAMPLE_KEYS, len(keys)))

    def write() -> None:
        with Client(endpoints, timeout=30.0) as client:
            for key in sample:
                client.put(key, b"")

    await asyncio.to_thread(write)
    await asyncio.sleep(LATE_SECONDS)
    if sorted(idle.told) != sorted((key, key) for key in sample):
        raise CheckFailedError(f"{len(sample)} keys were written, watchers were told of {len(idle.told)}")
    return len(sample)
