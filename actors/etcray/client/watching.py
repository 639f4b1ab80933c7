"""What a watch is, and how all watches of a client share one stream. Pure: bytes in, bytes out, no clock.

A `WatchState` knows which revision its consumer needs next. Whatever happens to the stream, the watch
is created again from there, so the consumer sees every event once and in order:

1. A batch of events moves `next_revision` behind its last event, a progress notification behind the
   revision that it names, the first answer to a watch "from now" behind the revision of its header.
2. When the stream breaks, the hub forgets the ids that the server gave, and the next stream begins with
   a create request per watch.
3. When a consumer is slower than the events, its watch alone is cancelled at the server (paused) and
   created again once half of its queue is taken. Stopping to read the stream would bound the memory as
   well, but one slow consumer would then silence all others, among them the lock that the same thread
   waits for.

Answers to create requests come in the order of the requests, which is how an answer finds its watch. A
watch that was cancelled before its answer came keeps its place in that order.
"""

from __future__ import annotations

import enum
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict

from etcray.client.errors import CompactedError, EtcrayError, WatchCancelledError, error_for
from etcray.client.results import KeyValue, key_value
from etcray.client.retry import pause_seconds
from etcray.client.values import Data, key_interval
from etcray_storage import errors as store
from etcray_storage.errors import Code
from etcray_storage.limits import WATCH_QUEUE_BYTES_MAX, WATCH_QUEUE_EVENTS_MAX
from etcray_storage.proto import kv_pb2, rpc_pb2

METHOD: Final = "/etcdserverpb.Watch/Watch"
METADATA: Final = (("hasleader", "true"),)
"""Asks the server to end the stream if its member has lost the leader: another member may have one."""

WHOLE_STREAM: Final = -1
"""The watch id of an answer to a progress request, and of a create request that was refused."""

_FINAL_CODES: Final = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
    }
)
"""A stream that ends with one of these would end so again."""

_FORMATTED_STATUS: Final = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.DOTALL)


class WatchOptions(TypedDict, total=False):
    """What a watch may say beyond its keys."""

    prefix: bool
    """Every key that starts with `key`; an empty key means all."""
    from_key: bool
    """Every key that is not smaller than `key`; an empty key means all."""
    start_revision: int
    """The first revision whose events are wanted, past or future; 0 means from now on."""
    prev_kv: bool
    """Events carry the pair as it was before."""
    no_put: bool
    """Leave out writes."""
    no_delete: bool
    """Leave out deletions."""
    progress_notify: bool
    """The server says from time to time how far it is: batches without events."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A key was written or deleted. A key that vanished with its lease is deleted like any other."""

    is_delete: bool
    kv: KeyValue
    """The pair that was written. Of a deleted key, only `key` and `mod_revision`, the revision that
    deleted it."""
    prev_kv: KeyValue | None
    """The pair before, if it was asked for, there was one, and it is not compacted away."""

    @property
    def key(self) -> bytes:
        return self.kv.key

    @property
    def value(self) -> bytes:
        return self.kv.value

    @property
    def revision(self) -> int:
        """The revision that made the event; events of one transaction share it."""
        return self.kv.mod_revision

    @property
    def is_create(self) -> bool:
        """True if the key did not exist before."""
        return not self.is_delete and self.kv.create_revision == self.kv.mod_revision


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Events in order; those of one revision are never in two batches. Without events, it is news about
    progress."""

    events: tuple[WatchEvent, ...]
    revision: int
    """A bookmark: with this batch, all events up to this revision have been handed out. A later watch
    that starts at the next one continues without gap or duplicate."""
    header_revision: int
    """What the server called its revision; newer than the events while it catches up."""
    size_bytes: int


class Phase(enum.Enum):
    WAITING = "not known to the server, and to be created with the next stream"
    CREATING = "requested, not answered"
    ACTIVE = "the server sends its events"
    PAUSED = "not known to the server until the consumer has caught up"
    ENDED = "cancelled, or failed with `error`"


def _nobody() -> None:
    pass


class WatchState:
    """One watch: what it asks for, where it is, and what its consumer has not taken yet."""

    def __init__(self, key: Data, range_end: Data | None, options: WatchOptions) -> None:
        start, end = key_interval(
            key, range_end, prefix=options.get("prefix", False), from_key=options.get("from_key", False)
        )
        filters = rpc_pb2.WatchCreateRequest.FilterType
        self._request = rpc_pb2.WatchCreateRequest(
            key=start,
            range_end=end,
            progress_notify=options.get("progress_notify", False),
            prev_kv=options.get("prev_kv", False),
            filters=[
                *([filters.NOPUT] if options.get("no_put", False) else []),
                *([filters.NODELETE] if options.get("no_delete", False) else []),
            ],
        )
        self.phase = Phase.WAITING
        self.watch_id: int | None = None
        """What the server calls it on the present stream; not None if and only if it is active."""
        self.next_revision = options.get("start_revision", 0)
        """The first revision that the consumer may still lack; 0 until the server said what "now" is."""
        self.was_created = False
        """True once a server has accepted it: from then on, nothing is missed."""
        self.error: EtcrayError | None = None
        self.changed: Callable[[], None] = _nobody
        """Called when the consumer has something to see; set by the shell."""
        self._newest_event_revision = 0
        self._batches: deque[WatchBatch] = deque()
        self._events_pending = 0
        self._bytes_pending = 0

    def create_message(self) -> bytes:
        self._request.start_revision = self.next_revision
        return rpc_pb2.WatchRequest(create_request=self._request).SerializeToString()

    def take(self) -> WatchBatch | None:
        """The oldest batch, or None if there is none. Raises the error that ended the watch once
        everything before it is taken."""
        if self._batches:
            batch = self._batches.popleft()
            self._events_pending -= len(batch.events)
            self._bytes_pending -= batch.size_bytes
            assert self._events_pending >= 0, f"{self._events_pending} events are pending"
            return batch
        if self.error is not None:
            raise self.error
        return None

    @property
    def may_resume(self) -> bool:
        """True for a paused watch whose queue is at most half full."""
        return (
            self.phase is Phase.PAUSED
            and self._events_pending <= WATCH_QUEUE_EVENTS_MAX // 2
            and self._bytes_pending <= WATCH_QUEUE_BYTES_MAX // 2
        )

    def was_accepted(self, watch_id: int, revision: int) -> None:
        """The server created it, when the store was at this revision."""
        assert self.phase is Phase.CREATING, f"a watch was created while it was {self.phase}"
        self.phase = Phase.ACTIVE
        self.watch_id = watch_id
        self.was_created = True
        if self.next_revision == 0:
            self.next_revision = revision + 1
        self.changed()

    def offer(self, message: rpc_pb2.WatchResponse, size_bytes: int) -> bool:
        """Queue what the server sent. False, and nothing changed, if there is no room for it."""
        revision = message.header.revision
        if message.events:
            # By the events that were seen, not by `next_revision`: etcd 3.5 may send a progress
            # notification ahead of an event that it covers.
            fresh = [e for e in message.events if e.kv.mod_revision > self._newest_event_revision]
            if not fresh:
                return True
            bookmark = fresh[-1].kv.mod_revision
        else:
            fresh, bookmark = [], revision
            if revision < self.next_revision - 1:
                return True  # of the time before the watch begins
        if not self._has_room(len(fresh), size_bytes):
            return False
        if fresh:
            self._newest_event_revision = bookmark
        self.next_revision = max(self.next_revision, bookmark + 1)
        self._queue(WatchBatch(tuple(_event(event) for event in fresh), bookmark, revision, size_bytes))
        return True

    def end(self, error: EtcrayError) -> None:
        """The first reason stays."""
        self.phase = Phase.ENDED
        self.watch_id = None
        if self.error is None:
            self.error = error
        self.changed()

    def discard(self) -> None:
        """Forget what the consumer has not taken."""
        self._batches.clear()
        self._events_pending = self._bytes_pending = 0

    def _has_room(self, events: int, size_bytes: int) -> bool:
        """An empty queue takes a batch of any size."""
        return not self._batches or (
            self._events_pending + max(events, 1) <= WATCH_QUEUE_EVENTS_MAX
            and self._bytes_pending + size_bytes <= WATCH_QUEUE_BYTES_MAX
        )

    def _queue(self, batch: WatchBatch) -> None:
        if not batch.events and self._batches and not self._batches[-1].events:
            # Of two notifications in a row only the newer one says anything.
            self._bytes_pending -= self._batches.pop().size_bytes
        self._batches.append(batch)
        self._events_pending += len(batch.events)
        self._bytes_pending += batch.size_bytes
        self.changed()


class WatchHub:
    """All watches of one client. Its methods answer with the messages to send on the present stream."""

    def __init__(self, jitter: random.Random) -> None:
        self._watches: set[WatchState] = set()
        self._by_id: dict[int, WatchState] = {}
        self._unanswered: deque[WatchState] = deque()
        """Whose create requests the present stream carries, oldest first."""
        self._is_connected = False
        self._failures = 0
        self._jitter = jitter
        self.last_failure = (Code.DEADLINE_EXCEEDED, "no answer in time")
        """Why the last stream ended; for those who waited in vain."""

    @property
    def is_idle(self) -> bool:
        """True if no watch is left: the stream can go."""
        return not self._watches

    def add(self, watch: WatchState) -> list[bytes]:
        self._watches.add(watch)
        return self._create(watch) if self._is_connected else []

    def cancel(self, watch: WatchState) -> list[bytes]:
        """The consumer wants no more: not even what is queued."""
        self._watches.discard(watch)
        watch_id = watch.watch_id
        watch.discard()
        watch.end(WatchCancelledError(Code.CANCELED, "the watch was cancelled"))
        return [] if watch_id is None else self._cancel_id(watch_id)

    def was_taken_from(self, watch: WatchState) -> list[bytes]:
        """To be called after each `take`: a paused watch may go on."""
        if not watch.may_resume:
            return []
        watch.phase = Phase.WAITING
        return self._create(watch) if self._is_connected else []

    def request_progress(self) -> list[bytes]:
        if not self._is_connected:
            return []
        request = rpc_pb2.WatchProgressRequest()
        return [rpc_pb2.WatchRequest(progress_request=request).SerializeToString()]

    def connected(self) -> list[bytes]:
        """A new stream is there."""
        assert not self._is_connected, "a second stream was opened"
        self._is_connected = True
        waiting = [watch for watch in self._watches if watch.phase is Phase.WAITING]
        return [message for watch in waiting for message in self._create(watch)]

    def disconnected(self, code: Code, message: str, endpoints: int) -> float:
        """The stream ended. Answers how many seconds to wait before the next; if a next one cannot
        help, all watches are ended."""
        self.dropped()
        self.last_failure = (code, message)
        if code in _FINAL_CODES:
            self.fail(error_for(code, message, writes=False))
            return 0.0
        self._failures += 1
        return pause_seconds(self._failures, endpoints, self._jitter)

    def dropped(self) -> None:
        """The stream is gone, because nobody needed it or because it failed."""
        self._is_connected = False
        self._by_id.clear()
        self._unanswered.clear()
        for watch in self._watches:
            watch.watch_id = None
            if watch.phase is not Phase.PAUSED:
                watch.phase = Phase.WAITING

    def fail(self, error: EtcrayError) -> None:
        """End all watches."""
        while self._watches:
            self._watches.pop().end(error)

    def received(self, data: bytes) -> list[bytes]:
        """One message of the stream."""
        self._failures = 0
        message = rpc_pb2.WatchResponse.FromString(data)
        if message.created:
            return self._on_created(message)
        if message.watch_id == WHOLE_STREAM:
            return [sent for watch in [*self._by_id.values()] for sent in self._offer(watch, message, 0)]
        watch = self._by_id.get(message.watch_id)
        if watch is None:
            return []  # what was under way when the watch was cancelled
        if message.canceled:
            del self._by_id[message.watch_id]
            self._end(watch, message)
            return []
        return self._offer(watch, message, len(data))

    def _on_created(self, message: rpc_pb2.WatchResponse) -> list[bytes]:
        if not self._unanswered:
            return []  # to a request that was never made
        watch = self._unanswered.popleft()
        if message.canceled:
            if watch.phase is Phase.CREATING:
                self._end(watch, message)
            return []
        if watch.phase is not Phase.CREATING:
            assert watch.phase is Phase.ENDED, f"an answer came for a watch that is {watch.phase}"
            return [_cancel_message(message.watch_id)]
        self._by_id[message.watch_id] = watch
        watch.was_accepted(message.watch_id, message.header.revision)
        return []

    def _offer(self, watch: WatchState, message: rpc_pb2.WatchResponse, size_bytes: int) -> list[bytes]:
        if watch.offer(message, size_bytes):
            return []
        assert watch.watch_id is not None, "events came for a watch that has no id"
        sent = self._cancel_id(watch.watch_id)
        watch.watch_id = None
        watch.phase = Phase.PAUSED
        return sent

    def _create(self, watch: WatchState) -> list[bytes]:
        assert watch.phase is Phase.WAITING, f"a watch is created while it is {watch.phase}"
        watch.phase = Phase.CREATING
        self._unanswered.append(watch)
        return [watch.create_message()]

    def _cancel_id(self, watch_id: int) -> list[bytes]:
        del self._by_id[watch_id]
        return [_cancel_message(watch_id)]

    def _end(self, watch: WatchState, message: rpc_pb2.WatchResponse) -> None:
        self._watches.discard(watch)
        watch.end(_error_of(message))


def _cancel_message(watch_id: int) -> bytes:
    request = rpc_pb2.WatchCancelRequest(watch_id=watch_id)
    return rpc_pb2.WatchRequest(cancel_request=request).SerializeToString()


def _error_of(message: rpc_pb2.WatchResponse) -> EtcrayError:
    """Why the server cancelled a watch."""
    if message.compact_revision:
        return CompactedError(
            store.COMPACTED.code, store.COMPACTED.message, compact_revision=message.compact_revision
        )
    reason = message.cancel_reason
    formatted = _FORMATTED_STATUS.fullmatch(reason)
    if formatted is not None:
        return error_for(_code_named(formatted[1]), formatted[2], writes=False)
    if reason == store.COMPACTED.message:
        return error_for(store.COMPACTED.code, reason, writes=False)
    if reason.startswith("mvcc: "):
        return error_for(Code.INVALID_ARGUMENT, reason, writes=False)
    return EtcrayError(Code.CANCELED, reason or "the server cancelled the watch and gave no reason")


def _code_named(name: str) -> Code:
    """As Go writes it: `PermissionDenied`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return Code[words] if words in Code.__members__ else Code.UNKNOWN


def _event(message: kv_pb2.Event) -> WatchEvent:
    return WatchEvent(
        message.type == kv_pb2.Event.EventType.DELETE,
        key_value(message.kv),
        key_value(message.prev_kv) if message.HasField("prev_kv") else None,
    )
