"""What a Kubernetes API server asks of its store, in likeness: what it does is copied, how often is ours.

| share | operation | what it is there |
|---|---|---|
| 35 % | renew-node | a node's heartbeat: a guarded put of its small object |
| 30 % | get | a linearizable read of one object |
| 20 % | update | a status that changes: a guarded put of an object, read first if others were faster |
| 8 % | event | an object that is created attached to a lease, which a hundred of them share |
| 2.5 % | create | a new object, if there is none of that name |
| 2.5 % | delete | a guarded deletion of an object that was created before |
| 2 % | list | all objects, in pages of 500 as of one revision |

Guarded means a transaction that compares the revision with the one last seen, as the API server's
optimistic concurrency does. Nine tenths of the keys are objects, one tenth are nodes; what is created comes
behind them. Values are 1 to 4 kB unless told otherwise. Meanwhile watch streams over everything stay open,
as many as API servers have caches: each event must reach each of them once, in order, unaltered.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final

from etcray_bench.load import messages, watch_decoding
from etcray_bench.load.errors import CheckFailedError, LoadError
from etcray_bench.load.keys import KeySpace, Values, Zipfian
from etcray_bench.load.ledger import NOTHING, Ledger
from etcray_bench.load.operations import Operations, Steps, Writer
from etcray_bench.load.options import Load
from etcray_bench.load.streaming import OpenStream, StreamConnection, connect
from etcray_bench.load.workloads import Inserts, Mix, Operation
from etcray_storage.proto import kv_pb2, rpc_pb2

SHARES: Final = {
    "renew-node": 0.35,
    "get": 0.3,
    "update": 0.2,
    "event": 0.08,
    "create": 0.025,
    "delete": 0.025,
    "list": 0.02,
}
PAGE_KEYS: Final = 500
EVENTS_PER_LEASE: Final = 100
CREATED_MAX: Final = 1000
"""Objects that one process creates before it must delete some."""
WATCHERS_DEFAULT: Final = 4
EVENTS_SECONDS_MAX: Final = 10.0
"""So long the last events may take to arrive."""


class Kubernetes:
    """Draws the operations. Guarded writes lose races where processes share keys: that is counted."""

    def __init__(
        self, load: Load, operations: Operations, generator: random.Random, part: int, parts: int
    ) -> None:
        self.operations = operations
        operations.ledger.changes = []
        draw = generator.random
        objects = max(1, load.keys * 9 // 10)
        nodes = max(1, load.keys - objects)
        zipfian = Zipfian(load.keys, load.zipfian_theta, draw)
        self._inserts = Inserts(operations, load.keys, part, parts, zipfian)
        self._ttl_seconds = load.lease_ttl_seconds
        self._lease = 0
        self._left_of_lease = 0
        self._created: deque[int] = deque()
        """Objects of this process that it may delete; not under way."""
        page = operations.messages.page(PAGE_KEYS)

        def any_object() -> int:
            return int(draw() * objects)

        self._mix = Mix(
            operations,
            SHARES,
            {
                "renew-node": lambda writer: operations.compare_and_put(
                    writer, min(objects + int(draw() * nodes), load.keys - 1)
                ),
                "get": lambda writer: operations.get(any_object()),
                "update": lambda writer: operations.compare_and_put(writer, any_object()),
                "event": self._event,
                "create": self._create,
                "delete": self._delete,
                "list": lambda writer: operations.list_all(page, 0, objects, draw),
            },
            draw,
        )

    def next(self, writer: Writer) -> Operation:
        if self._left_of_lease == 0:
            self._left_of_lease = EVENTS_PER_LEASE
            return "lease-grant", self._grant()
        return self._mix.next(writer)

    def _grant(self) -> Steps:
        """The events that come meanwhile use the lease before."""
        self._lease = yield from self.operations.grant(self._ttl_seconds)

    def _event(self, writer: Writer) -> Steps:
        self._left_of_lease -= 1
        return self.operations.compare_and_put(writer, self._inserts.take(), lease=self._lease)

    def _create(self, writer: Writer) -> Steps:
        if len(self._created) >= CREATED_MAX:
            yield from self.operations.delete(self._created.popleft())
            return
        key = self._inserts.take()
        yield from self.operations.compare_and_put(writer, key)
        self._created.append(key)

    def _delete(self, writer: Writer) -> Steps:
        if not self._created:
            yield from self._create(writer)
            return
        yield from self.operations.delete(self._created.popleft())


class Watchers:
    """Streams over all keys, which see every change. Create them in a running loop."""

    def __init__(self, load: Load, ledger: Ledger) -> None:
        self._load = load
        self._ledger = ledger
        self._space = KeySpace(load.prefix.encode(), load.key_bytes)
        self._values = Values(load)
        self._decoded: dict[bytes, list[tuple[int, int, int]]] = {}
        self._connections: list[StreamConnection] = []
        self._loop = asyncio.get_running_loop()
        self.watchers: list[Watcher] = []
        self.changes: list[tuple[int, int, int]] = []
        """Revision, key and stamp of all events, as the first watcher that got them saw them."""
        self.created = 0
        self.broken: asyncio.Future[None] = self._loop.create_future()

    @property
    def events(self) -> int:
        return sum(watcher.seen for watcher in self.watchers)

    async def connect(self) -> None:
        load = self._load
        for number in range(load.watchers or WATCHERS_DEFAULT):
            endpoint = load.endpoints[number % len(load.endpoints)]
            connection = await connect(endpoint)
            self._connections.append(connection)
            connection.lost.add_done_callback(self._lost)
            watcher = Watcher(self)
            self.watchers.append(watcher)
            stream: OpenStream = connection.open(messages.WATCH, watcher)
            stream.send(watch_decoding.creation(self._space.prefix, self._space.end))
        deadline = self._loop.time() + EVENTS_SECONDS_MAX
        while self.created < len(self.watchers):
            if self.broken.done():
                self.broken.result()
            if self._loop.time() > deadline:
                raise LoadError(f"watchers were not created in {EVENTS_SECONDS_MAX} s")
            await asyncio.sleep(0.01)

    def _lost(self, lost: asyncio.Future[None]) -> None:
        error = lost.exception()
        if error is not None and not self.broken.done():
            known = isinstance(error, LoadError)
            self.broken.set_exception(error if known else LoadError(f"a watcher was cut off: {error}"))

    def decode(self, tail: bytes) -> list[tuple[int, int, int]]:
        """Of a response's events; those that all watchers share are decoded once."""
        found = self._decoded.get(tail)
        if found is None:
            found = [self._change(event) for event in rpc_pb2.WatchResponse.FromString(tail).events]
            self._decoded = {tail: found} if len(self._decoded) > 1000 else {**self._decoded, tail: found}
        return found

    def _change(self, event: kv_pb2.Event) -> tuple[int, int, int]:
        pair = event.kv
        key = self._space.number(pair.key)
        is_put = event.type == kv_pb2.Event.EventType.PUT
        stamp = self._values.stamp_of(key, pair.value) if is_put else NOTHING
        return pair.mod_revision, key, stamp

    async def finish(self) -> None:
        """Wait until all have what this process was acknowledged; raises CheckFailedError if it does not
        come."""
        last = max((revision for revision, _, _ in self._ledger.changes or []), default=0)
        deadline = self._loop.time() + EVENTS_SECONDS_MAX
        while any(watcher.position < last for watcher in self.watchers):
            if self.broken.done():
                self.broken.result()
            if self._loop.time() > deadline:
                behind = min(watcher.position for watcher in self.watchers)
                raise CheckFailedError(
                    f"a watcher has got up to revision {behind}, the last change is {last}"
                )
            await asyncio.sleep(0.02)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class Watcher:
    """One stream."""

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers
        self.seen = 0
        self.position = 0

    def received(self, message: bytes, now: float) -> None:
        _, tail = watch_decoding.split(message)
        if not watch_decoding.has_events(tail):
            if not watch_decoding.is_creation(tail):
                raise CheckFailedError(f"a watcher was told: {tail!r}")
            self._watchers.created += 1
            return
        common = self._watchers.changes
        for change in self._watchers.decode(tail):
            if change[0] <= self.position:
                raise CheckFailedError(f"an event of revision {change[0]} came behind {self.position}")
            if self.seen == len(common):
                common.append(change)
            elif common[self.seen] != change:
                raise CheckFailedError(f"two watchers saw different events: {change}, {common[self.seen]}")
            self.position = change[0]
            self.seen += 1


def check_changes(ledger: Ledger, events: list[tuple[int, int, int]]) -> None:
    """What watchers saw is what was acknowledged, as far as they had come; raises CheckFailedError."""
    assert ledger.changes is not None, "nobody noted the changes"
    position = events[-1][0] if events else 0
    acknowledged = {change for change in ledger.changes if change[0] <= position}
    seen = set(events)
    if missed := acknowledged - seen:
        raise CheckFailedError(f"watchers missed {len(missed)} changes, one of revision {min(missed)[0]}")
    for revision, key, stamp in seen - acknowledged:
        if stamp not in ledger.unknown.get(key, ()):
            raise CheckFailedError(f"an event of revision {revision} for key {key} is of no known write")
