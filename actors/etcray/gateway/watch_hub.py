"""All watches of one gateway, fed by one stream of events. Pure: time, chance and answers are given to it.

The hub has a position: it has been given every event up to there, once, in order. A watcher is *synced*
if everything it wants up to the position is in its stream's queue; then a new batch of events is matched
through the index and goes to it at once. All others are behind: they wait for a read of the past
(`watch_catch_up`), or, *parked*, for their client to read.

Where "now" is. A watcher without a start revision starts behind the highest revision that this gateway has
answered to anybody, even if the events up to there have not arrived yet: a client must not be told of its
own earlier write as if it were news. Its `created` answer names that revision, so that a client that
reconnects later knows where it was.

How a watcher is handed over from the past to the present, as a story:

1. The hub is at 100. A watcher wants everything from 40 on: it is behind, with position 40. It is in the
   index already, but live batches pass it by.
2. A read of 40 to 100 is asked of some member. Meanwhile the hub goes on to 103.
3. The answer brings 40 to 80, complete: its position is now 81. Another read brings 81 to 103.
4. In the meantime the hub has got to 105. The events above some floor, say 90, are still in the hub's
   memory: 104 and 105 are taken from there, in the same turn, in which no other batch can arrive.
5. Its position is 106, one above the hub's: it is synced. The next live batch begins at 106.

Every step begins at the watcher's position and moves it, so nothing comes twice, whichever answer is late,
lost or from another member; and it is synced only when its position is above the hub's, so there is no gap.

A stream that is full stops its watchers at the first revision for which there was no room. They are
parked, and cost nothing until the client has read half of what waits; then they are behind like any
other. If their past is compacted by then, they are cancelled with the compact revision.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Final

from etcray.gateway import watch_responses as responses
from etcray.gateway.watch_catch_up import CatchUps
from etcray.gateway.watch_index import Bucket, WatchIndex
from etcray.gateway.watch_responses import Encoded, Identity, Piece
from etcray.gateway.watch_stream import NO_BUCKET, Watcher, WatchStream
from etcray.node.api import Outcome, WatchEvents, WatchPoll
from etcray_storage.errors import (
    COMPACTED,
    REQUEST_TOO_MANY_REQUESTS,
    EtcdError,
)
from etcray_storage.limits import (
    WATCH_BUFFERED_BYTES_MAX,
    WATCH_POLL_BYTES,
    WATCH_POLL_SECONDS,
    WATCH_RANGES_BYTES_MAX,
    WATCHERS_MAX,
)
from etcray_storage.proto.rpc_pb2 import WatchCreateRequest

PROGRESS_SECONDS: Final = 600.0
PROGRESS_SECONDS_MIN: Final = 0.1
PROGRESS_JITTER: Final = 0.1
"""Progress is reported up to a tenth of the interval later, so that streams do not do it together."""

EMPTY_RANGE_TEXT: Final = "mvcc: watcher range is empty"
DUPLICATE_ID_TEXT: Final = "mvcc: duplicate watch ID provided on the WatchStream"

Variants = dict[tuple[bool, bool, bool, bool, int], list[Encoded]]
"""What was encoded already of one piece for one bucket: by previous, filters, fragment, first event."""


class WatchHub:
    """Every method is called on one thread. `schedule` is called when `poll` or the catch-ups may have
    something new to ask a member."""

    def __init__(
        self,
        cluster_id: int,
        rng: random.Random,
        schedule: Callable[[], None],
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        assert progress_seconds >= PROGRESS_SECONDS_MIN, f"progress every {progress_seconds} s"
        self._rng = rng
        self.schedule = schedule
        self._progress_seconds = progress_seconds
        self.index = WatchIndex()
        self.catch_ups = CatchUps(self)
        self.identity = Identity(cluster_id, 0, 0)
        self.position: int | None = None
        """Never goes back while anybody watches. None: nobody watches, so nobody asks for events."""
        self.with_previous = False
        """Some watcher wanted previous pairs since the hub has its position."""
        self.watcher_count = 0
        self.range_bytes = 0
        self.buffered_bytes = 0
        """In the queues of all streams."""
        self.streams: dict[WatchStream, None] = {}
        self._progress: list[tuple[float, int, WatchStream]] = []
        self._progress_number = 0

    # --- streams ------------------------------------------------------------------------------

    def open_stream(self, notify: Callable[[], None]) -> WatchStream:
        stream = WatchStream(notify)
        self.streams[stream] = None
        return stream

    def close_stream(self, stream: WatchStream) -> None:
        """The client left, or the stream was ended. Idempotent."""
        if stream not in self.streams:
            return
        del self.streams[stream]
        for watcher in list(stream.watchers.values()):
            self._drop(watcher)
        self.buffered_bytes -= stream.queued_bytes
        stream.queue.clear()
        stream.queued_bytes = 0

    def end_stream(self, stream: WatchStream, error: EtcdError) -> None:
        """Close a stream with an error that its client is told."""
        self.close_stream(stream)
        if stream.error is None:
            stream.error = error
            stream.notify()

    def take(self, stream: WatchStream) -> bytes | None:
        """The next response, for the client that is ready to read it."""
        if not stream.queue:
            return None
        head, tail = stream.queue.popleft()
        size = len(head) + len(tail)
        stream.queued_bytes -= size
        self.buffered_bytes -= size
        if stream.parked and stream.read_enough:
            for watcher in stream.parked:
                self.catch_ups.wait(watcher)
            stream.parked.clear()
            self.schedule()
        return head + tail

    # --- what clients ask for -----------------------------------------------------------------

    def create(
        self, stream: WatchStream, request: WatchCreateRequest, answered_revision: int, now: float
    ) -> None:
        """Answer a creation. The hub has a position (see `poll`), and `answered_revision` is the highest
        that any client of this gateway has been told."""
        assert self.position is not None, "a watcher before the hub knows where it is"
        current = max(self.position, answered_revision)
        key, range_end = request.key or b"\0", request.range_end
        reason = self._refusal(stream, request, key, range_end)
        if reason is not None:
            self._answer(stream, responses.refused(self.identity, current, reason))
            return
        watch_id = request.watch_id or stream.pick_id()
        start = request.start_revision or current + 1
        watcher = Watcher(stream, watch_id, start)
        watcher.progress_from = request.start_revision or current
        watcher.with_previous = request.prev_kv
        watcher.no_put = WatchCreateRequest.NOPUT in request.filters
        watcher.no_delete = WatchCreateRequest.NODELETE in request.filters
        watcher.fragment = request.fragment
        watcher.progress = request.progress_notify
        self.index.add(watcher, key, range_end)
        stream.watchers[watch_id] = watcher
        self.watcher_count += 1
        self.range_bytes += len(key) + len(range_end)
        self.with_previous |= watcher.with_previous
        if watcher.progress and stream.progress_at is None:
            self._schedule_progress(stream, now)
        self._answer(stream, responses.created(self.identity, current, watch_id))
        if start <= self.position:
            watcher.synced = False
            watcher.unchecked = True
            self.catch_ups.wait(watcher)
        self.schedule()

    def _refusal(
        self, stream: WatchStream, request: WatchCreateRequest, key: bytes, range_end: bytes
    ) -> str | None:
        if request.start_revision < 0:
            return COMPACTED.message
        if range_end and range_end != b"\0" and key >= range_end:
            return EMPTY_RANGE_TEXT
        if request.watch_id and request.watch_id in stream.watchers:
            return DUPLICATE_ID_TEXT
        if self.watcher_count >= WATCHERS_MAX or self.range_bytes > WATCH_RANGES_BYTES_MAX:
            return REQUEST_TOO_MANY_REQUESTS.message
        return None

    def cancel(self, stream: WatchStream, watch_id: int) -> None:
        """End one watcher. An unknown id gets no answer, as in etcd."""
        watcher = stream.watchers.get(watch_id)
        if watcher is not None:
            self._drop(watcher)
            self._answer(stream, responses.canceled(self.identity, self.position or 0, watch_id))

    def request_progress(self, stream: WatchStream) -> None:
        """Say how far the whole stream is, if all its watchers are there; else say nothing, as etcd."""
        if self.position is None or not stream.watchers or not stream.all_synced(self.position):
            return
        report = responses.progress(self.identity, self.position, responses.WHOLE_STREAM)
        if stream.has_room(len(report), self.crowded):
            self._answer(stream, report)

    # --- events -------------------------------------------------------------------------------

    def poll(self) -> WatchPoll | None:
        """What to ask for next; to be asked by one call at a time. None if there is no stream. The first
        answer only says where the hub begins: every member's memory begins above revision 0."""
        if not self.streams:
            self._forget()
            return None
        return WatchPoll(self.position or 0, self.with_previous, WATCH_POLL_BYTES, WATCH_POLL_SECONDS)

    def _forget(self) -> None:
        """Nobody watches: the next watcher must not start where the last one ended."""
        self.position = None
        self.with_previous = False
        self.catch_ups.forget()

    def polled(self, reply: WatchEvents) -> None:
        """A member's answer to the last poll; it may be another member than before."""
        assert reply.outcome is Outcome.ANSWERED, f"{reply.outcome} is no answer"
        self.identity = Identity(self.identity.cluster, reply.member, max(reply.term, self.identity.term))
        if self.position is None:
            self.position = reply.revision
            self.catch_ups.restart(reply.revision)
            return
        assert reply.revision >= self.position, f"member at {reply.revision}, hub at {self.position}"
        if reply.missed:
            self._skip(reply.revision)
        elif reply.revision > self.position:
            self._receive(Piece(self.position + 1, reply.revision, reply, self.identity))

    def _skip(self, revision: int) -> None:
        """The member no longer has what happened meanwhile: everybody has to read it from the past."""
        assert self.position is not None
        first_missed, self.position = self.position + 1, revision
        self.catch_ups.restart(revision)
        for stream in self.streams:
            for watcher in stream.watchers.values():
                if watcher.synced and watcher.position <= revision:
                    self._fall_behind(watcher, max(watcher.position, first_missed))
        self.schedule()

    def _receive(self, piece: Piece) -> None:
        self.position = piece.through
        self.catch_ups.remember(piece)
        for bucket, hits in self.hits_of(piece).items():
            variants: Variants = {}
            for watcher in bucket.watchers:
                if not watcher.synced or watcher.position > piece.through:
                    continue
                if watcher.with_previous and piece.previous is None:
                    # The poll was on its way before this watcher came.
                    self._fall_behind(watcher, max(watcher.position, piece.first))
                    continue
                stopped_at = self.deliver(watcher, piece, hits, variants)
                if stopped_at is not None:
                    watcher.synced = False
                    self.park(watcher, stopped_at)

    def hits_of(self, piece: Piece) -> dict[Bucket, list[int]]:
        """The places of the events that concern each bucket."""
        hits: dict[Bucket, list[int]] = {}
        find = self.index.find
        for place, key in enumerate(piece.keys):
            for bucket in find(key):
                found = hits.get(bucket)
                if found is None:
                    hits[bucket] = [place]
                else:
                    found.append(place)
        return hits

    def deliver(self, watcher: Watcher, piece: Piece, hits: list[int], variants: Variants) -> int | None:
        """Queue the events at these places that are at or above the watcher's position. If there is no
        room for all, returns the revision of the first that was left."""
        start = piece.from_revision(hits, watcher.position)
        wish = (watcher.with_previous, watcher.no_put, watcher.no_delete, watcher.fragment, start)
        encoded = variants.get(wish)
        if encoded is None:
            encoded = variants[wish] = piece.encode(hits[start:] if start else hits, watcher)
        if not encoded:
            return None
        stream = watcher.stream
        stream.notify()
        watcher.quiet = False
        name = responses.id_field(watcher.watch_id)
        for header, tail, first_revision, continued in encoded:
            size = len(header) + len(name) + len(tail)
            if not continued and not stream.has_room(size, self.crowded):
                return first_revision
            stream.queue.append((header + name, tail))
            stream.queued_bytes += size
            self.buffered_bytes += size
        return None

    @property
    def crowded(self) -> bool:
        return self.buffered_bytes > WATCH_BUFFERED_BYTES_MAX

    def _fall_behind(self, watcher: Watcher, position: int) -> None:
        watcher.synced = False
        watcher.position = position
        self.catch_ups.wait(watcher)
        self.schedule()

    def move_on(self, watcher: Watcher, position: int) -> None:
        """A watcher that is behind has everything below `position` now."""
        assert self.position is not None
        watcher.position = position
        if position > self.position:
            watcher.synced = True
        else:
            self.catch_ups.wait(watcher)

    def park(self, watcher: Watcher, position: int) -> None:
        """There was no room for what begins at `position`. So the queue is not empty, and a `take` will
        come that wakes the watcher."""
        assert watcher.stream.queue, f"watcher {watcher.watch_id} is parked at an empty queue"
        watcher.position = position
        watcher.stream.parked[watcher] = None

    # --- ends ---------------------------------------------------------------------------------

    def cancel_compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """What the watcher should get next does not exist any more."""
        self._drop(watcher)
        self._answer(watcher.stream, responses.canceled(self.identity, 0, watcher.watch_id, compact_revision))

    def _drop(self, watcher: Watcher) -> None:
        stream, bucket = watcher.stream, watcher.bucket
        del stream.watchers[watcher.watch_id]
        stream.parked.pop(watcher, None)
        self.catch_ups.remove(watcher)
        self.index.remove(watcher)
        watcher.bucket = NO_BUCKET
        self.watcher_count -= 1
        self.range_bytes -= len(bucket.key) + len(bucket.range_end)

    def _answer(self, stream: WatchStream, response: bytes) -> None:
        stream.queue.append((response, b""))
        stream.queued_bytes += len(response)
        self.buffered_bytes += len(response)
        stream.notify()

    # --- time ---------------------------------------------------------------------------------

    def next_wakeup(self) -> float | None:
        """When `tick` should be called; None if nothing depends on time."""
        return self._progress[0][0] if self._progress else None

    def tick(self, now: float) -> None:
        while self._progress and self._progress[0][0] <= now:
            _, _, stream = heapq.heappop(self._progress)
            if stream in self.streams:
                self._report_progress(stream, now)

    def _schedule_progress(self, stream: WatchStream, now: float) -> None:
        wait = self._progress_seconds * (1 + PROGRESS_JITTER * self._rng.random())
        stream.progress_at = now + wait
        self._progress_number += 1
        heapq.heappush(self._progress, (stream.progress_at, self._progress_number, stream))
        self.schedule()

    def _report_progress(self, stream: WatchStream, now: float) -> None:
        """One report to each watcher that wants it, is up to date, and got nothing since last time."""
        stream.progress_at = None
        wanting = [watcher for watcher in stream.watchers.values() if watcher.progress]
        for watcher in wanting:
            reached = self.position is not None and self.position >= watcher.progress_from
            if watcher.quiet and watcher.synced and reached:
                assert self.position is not None
                report = responses.progress(self.identity, self.position, watcher.watch_id)
                if stream.has_room(len(report), self.crowded):
                    self._answer(stream, report)
            watcher.quiet = True
        if wanting:
            self._schedule_progress(stream, now)
