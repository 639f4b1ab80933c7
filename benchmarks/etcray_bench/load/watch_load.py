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
from typing import Final

from etcray_bench.load import watch_decoding
from etcray_bench.load.connection import Call
from etcray_bench.load.errors import CheckFailedError, LoadError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.messages import PUT, WATCH, Messages
from etcray_bench.load.options import Load
from etcray_bench.load.recorder import Recorder
from etcray_bench.load.streaming import OpenStream, StreamConnection, connect, connect_all
from etcray_storage.proto import rpc_pb2

TAILS_KEPT: Final = 4096
CREATE_SECONDS_MAX: Final = 60.0


class WatchedWriter(Call):
    """Its put is over when nothing is `missing`: neither the answer nor any watcher's event."""

    __slots__ = ("_delivery", "key", "missing", "number", "sequence")

    def __init__(self, delivery: Delivery, number: int) -> None:
        super().__init__()
        self._delivery = delivery
        self.number = number
        self.sequence = 0
        """Of its next put."""
        self.key = 0
        """Of the one under way."""
        self.missing = 0

    def answered(self, message: bytes, now: float) -> None:
        self._delivery.put_done(self, rpc_pb2.PutResponse.FromString(message).header.revision, now)

    def failed(self, error: str, now: float) -> None:
        self._delivery.break_off(LoadError(f"a put failed: {error}"))


class Batch:
    """Decoded events that follow each other without a gap, and when their puts were sent."""

    __slots__ = ("first", "last", "starts", "writers")

    def __init__(self, first: int, writers: list[WatchedWriter], starts: list[float]) -> None:
        self.first = first
        self.last = first + len(writers) - 1
        self.writers = writers
        self.starts = starts


class StreamReader:
    """The watchers of one stream; number i has watch id i."""

    __slots__ = ("_delivery", "positions", "stream")

    def __init__(self, delivery: Delivery, watchers: int, revision: int) -> None:
        self._delivery = delivery
        self.positions = [revision] * watchers
        """The last revision that each watcher has got."""
        self.stream: OpenStream | None = None

    def received(self, message: bytes, now: float) -> None:
        watch_id, tail = watch_decoding.split(message)
        batch = self._delivery.batches.get(tail)
        if batch is None:
            if not watch_decoding.has_events(tail):
                self._delivery.control(tail)
                return
            batch = self._delivery.decode(tail)
        if batch.first != self.positions[watch_id] + 1:
            raise CheckFailedError(
                f"watcher {watch_id} has got up to {self.positions[watch_id]}, and now {batch.first}"
            )
        self.positions[watch_id] = batch.last
        self._delivery.delivered(batch, now)


class Delivery:
    """Runs one load. Create it in a running loop; `revision` is the store's before it begins."""

    def __init__(self, load: Load, ledger: Ledger, revision: int) -> None:
        self.load = load
        self._ledger = ledger
        self._revision = revision
        self._space = KeySpace(load.prefix.encode(), load.key_bytes)
        self._values = Values(load)
        self._messages = Messages(self._space, self._values)
        self.recorder = Recorder(is_open=False)
        self.connections_lost = 0
        self.conflicts = 0
        self.writers = [WatchedWriter(self, number) for number in range(load.clients)]
        self.batches: dict[bytes, Batch] = {}
        self.readers: list[StreamReader] = []
        self._uncreated = load.watchers
        self._loop = asyncio.get_running_loop()
        self._created: asyncio.Future[None] = self._loop.create_future()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self.drained: asyncio.Future[None] = self._loop.create_future()
        self._connections: list[StreamConnection] = []
        self._put_connection: StreamConnection | None = None
        self._stopping = False
        self._active = len(self.writers)

    @property
    def events(self) -> int:
        """Every watcher's, in the whole run; each was checked."""
        return sum(position - self._revision for reader in self.readers for position in reader.positions)

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
        for number, (revision, key, value) in enumerate(events):
            stamp = self._values.stamp_of(self._space.number(key), value)
            who, sequence = stamp >> 32, stamp & 0xFFFFFFFF
            if who >= len(self.writers):
                raise CheckFailedError(f"event {revision}: there is no writer {who}")
            writer = self.writers[who]
            if revision != events[0][0] + number or sequence != writer.sequence - 1:
                raise CheckFailedError(f"event {revision}: put {sequence} of writer {who} is not expected")
            if self._space.number(key) != writer.key:
                raise CheckFailedError(f"event {revision}: {key!r} is not what writer {who} writes")
            writers.append(writer)
        batch = Batch(events[0][0], writers, [writer.started for writer in writers])
        if len(self.batches) >= TAILS_KEPT:
            del self.batches[next(iter(self.batches))]
        self.batches[tail] = batch
        return batch

    def delivered(self, batch: Batch, now: float) -> None:
        self.recorder.delivered(batch.starts, now)
        for writer in batch.writers:
            writer.missing -= 1
            if not writer.missing:
                self._next_put(writer)

    def put_done(self, writer: WatchedWriter, revision: int, now: float) -> None:
        self._ledger.put(writer.key, revision, writer.number << 32 | writer.sequence - 1)
        self.recorder.answered("put", writer.started, now)
        writer.missing -= 1
        if not writer.missing:
            self._next_put(writer)

    def _next_put(self, writer: WatchedWriter) -> None:
        assert self._put_connection is not None, "a put before there is a connection"
        if self._stopping:
            self._active -= 1
            if self._active == 0:
                self.drained.set_result(None)
            return
        writer.key = key = (writer.number + len(self.writers) * writer.sequence) % self.load.keys
        message = self._messages.puts[writer.sequence % len(self._messages.puts)](
            (key, key, writer.number, writer.sequence)
        )
        writer.sequence += 1
        writer.missing = 1 + self.load.watchers
        self._put_connection.begin(writer, PUT, message)

    # --- the run ---------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Until all watchers were created."""
        load = self.load
        streams = await connect_all(load.endpoints, max(len(load.endpoints), load.connections))
        self._put_connection = await connect(load.endpoints[0])
        self._connections = [*streams, self._put_connection]
        for connection in self._connections:
            connection.lost.add_done_callback(self._lost)
        for number in range(math.ceil(load.watchers / load.watchers_per_stream)):
            count = min(load.watchers_per_stream, load.watchers - number * load.watchers_per_stream)
            reader = StreamReader(self, count, self._revision)
            self.readers.append(reader)
            reader.stream = streams[number % len(streams)].open(WATCH, reader)
            for _ in range(count):
                reader.stream.send(
                    watch_decoding.creation(self._space.prefix, self._space.end, self._revision + 1)
                )
        await asyncio.wait(
            [self._created, self.broken], timeout=CREATE_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
        )
        if self.broken.done():
            self.broken.result()
        if not self._created.done():
            raise LoadError(f"{self._uncreated} watchers were not created in {CREATE_SECONDS_MAX} s")

    def begin(self, start: float) -> None:
        for writer in self.writers:
            self._next_put(writer)

    def stop(self) -> None:
        self._stopping = True

    def break_off(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    def _lost(self, lost: asyncio.Future[None]) -> None:
        error = lost.exception()
        if error is not None:
            self.break_off(
                error if isinstance(error, LoadError) else LoadError(f"a connection was lost: {error}")
            )

    def check(self) -> None:
        """Every watcher has got every put."""
        puts = sum(writer.sequence for writer in self.writers)
        behind = sum(
            position != self._revision + puts for reader in self.readers for position in reader.positions
        )
        if behind or not puts:
            raise CheckFailedError(f"{behind} watchers have not got all of {puts} puts")

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
