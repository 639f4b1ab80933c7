"""One client's watch stream: its watchers, and the responses that it has not read yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from etcray.gateway.watch_index import Bucket
from etcray_storage.errors import EtcdError
from etcray_storage.limits import WATCH_STREAM_BYTES_MAX, WATCH_STREAM_RESPONSES_MAX

NO_BUCKET: Final = Bucket(b"", b"")
"""Of a watcher that is not in the index, before and after its life."""


class Watcher:
    """One watch. Slotted and small: a gateway may have 100,000 that nothing happens to."""

    __slots__ = (
        "bucket",
        "fragment",
        "no_delete",
        "no_put",
        "place",
        "position",
        "progress",
        "progress_from",
        "quiet",
        "stream",
        "synced",
        "unchecked",
        "watch_id",
        "with_previous",
    )

    def __init__(self, stream: WatchStream, watch_id: int, position: int) -> None:
        self.stream = stream
        self.watch_id = watch_id
        self.bucket = NO_BUCKET
        self.place = -1
        """In the bucket's list."""
        self.position = position
        """No event below this revision may be delivered any more. While the watcher is synced, this
        is only what it was when it became so, or where it wants to start."""
        self.progress_from = position
        """Progress is not reported while the store has not reached this revision."""
        self.synced = True
        """It gets everything that the live stream brings; never true while an event at or above its
        position, and at or below the hub's, is not in its stream's queue."""
        self.unchecked = False
        """It starts in the past, and no member has yet said whether that past still exists. Events in
        the hub's memory are no proof: a client that has compacted them is to be told so."""
        self.with_previous = False
        self.no_put = False
        self.no_delete = False
        self.fragment = False
        self.progress = False
        self.quiet = False
        """Nothing was sent to it since its stream's progress was last looked at."""


class WatchStream:
    """The queue is bounded; only control answers go over the bound, and then the stream's requests
    are not read until it is below again. `notify` is called when there is something to take."""

    __slots__ = (
        "error",
        "next_id",
        "notify",
        "parked",
        "progress_at",
        "queue",
        "queued_bytes",
        "watchers",
    )

    def __init__(self, notify: Callable[[], None]) -> None:
        self.notify = notify
        self.watchers: dict[int, Watcher] = {}
        self.next_id = 0
        self.queue: deque[tuple[bytes, bytes]] = deque()
        """Each response in two parts, because the second is shared by many watchers."""
        self.queued_bytes = 0
        self.parked: dict[Watcher, None] = {}
        """Watchers that found no room; they wait for the client to read."""
        self.progress_at: float | None = None
        """When progress is to be reported next; None if no watcher wants it."""
        self.error: EtcdError | None = None
        """Set once the stream is over."""

    def has_room(self, size: int, crowded: bool) -> bool:
        """Whether a response of this size may wait here; `crowded` if the gateway is short of memory."""
        if not self.queue:
            return True
        if crowded or len(self.queue) >= WATCH_STREAM_RESPONSES_MAX:
            return False
        return self.queued_bytes + size <= WATCH_STREAM_BYTES_MAX

    @property
    def read_enough(self) -> bool:
        """Whether the client has read so much that its parked watchers are worth a new start."""
        return (
            len(self.queue) <= WATCH_STREAM_RESPONSES_MAX // 2
            and self.queued_bytes <= WATCH_STREAM_BYTES_MAX // 2
        )

    def pick_id(self) -> int:
        """The next id that the server chooses: 0, 1, 2 ..., without those that the client took."""
        while self.next_id in self.watchers:
            self.next_id += 1
        picked = self.next_id
        self.next_id += 1
        return picked

    def all_synced(self, revision: int) -> bool:
        """Whether every watcher has been sent everything up to the revision and wants to be past its
        start. Also true of a stream without watchers."""
        return all(w.synced and revision >= w.progress_from for w in self.watchers.values())
