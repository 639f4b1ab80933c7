"""Watchers that are behind: what is asked of the past for them, and what becomes of the answers.

`watch_hub` tells how a watcher comes here and leaves. This module decides what to read. Watchers of one
range that are near each other share a read. If many ranges are behind at once, after a member switch or a
reconnection of everybody, all keys are read once for all of them. What is still in the hub's memory is
not read at all, once a member has confirmed that it is not compacted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from etcray.gateway.watch_responses import Piece
from etcray.gateway.watch_stream import Watcher
from etcray.node.api import HistoryReply, HistoryRequest, Outcome
from etcray_storage.limits import (
    WATCH_CATCH_UP_BYTES,
    WATCH_CATCH_UP_RANGES_MAX,
    WATCH_CATCH_UP_REVISIONS,
    WATCH_CATCH_UP_WINDOW_REVISIONS,
    WATCH_CATCH_UPS_MAX,
    WATCH_RECENT_BYTES,
    WATCH_RECENT_REVISIONS,
)

if TYPE_CHECKING:
    from etcray.gateway.watch_hub import Variants, WatchHub
    from etcray.gateway.watch_index import Bucket


class CatchUp:
    """One read of the past, and for whom it is."""

    __slots__ = ("bucket", "request", "unchecked", "watchers")

    def __init__(self, request: HistoryRequest, bucket: Bucket | None, watchers: dict[Watcher, None]) -> None:
        self.request = request
        self.bucket = bucket
        """None: all keys are read, for watchers of several buckets."""
        self.watchers = watchers
        """A watcher that is dropped meanwhile is taken out."""
        self.unchecked = any(watcher.unchecked for watcher in watchers)
        """The leader should be asked: another member may not have heard of a compaction yet."""


class CatchUps:
    """Each watcher that is behind is in exactly one of: `_waiting`, the watchers of one read under way,
    the parked of its stream."""

    def __init__(self, hub: WatchHub) -> None:
        self._hub = hub
        self._waiting: dict[Watcher, None] = {}
        self._under_way: dict[CatchUp, None] = {}
        self._recent: deque[Piece] = deque()
        """The newest pieces that the hub was given; together everything above `_floor`."""
        self._recent_bytes = 0
        self._floor = 0

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    # --- the hub's memory ---------------------------------------------------------------------

    def remember(self, piece: Piece) -> None:
        self._recent.append(piece)
        self._recent_bytes += piece.size_bytes
        while self._recent and (
            self._recent_bytes > WATCH_RECENT_BYTES or piece.through - self._floor > WATCH_RECENT_REVISIONS
        ):
            dropped = self._recent.popleft()
            self._recent_bytes -= dropped.size_bytes
            self._floor = dropped.through

    def restart(self, revision: int) -> None:
        """The hub's position jumped: what is remembered does not join what comes next."""
        self._recent.clear()
        self._recent_bytes = 0
        self._floor = revision

    def forget(self) -> None:
        assert not self._waiting, f"{len(self._waiting)} watchers wait for a hub that nobody uses"
        self.restart(0)

    # --- watchers -----------------------------------------------------------------------------

    def wait(self, watcher: Watcher) -> None:
        assert not watcher.synced, f"watcher {watcher.watch_id} is not behind"
        assert watcher.position <= (self._hub.position or 0), f"{watcher.position} is not in the past"
        self._waiting[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        self._waiting.pop(watcher, None)
        if not watcher.synced:
            for catch_up in self._under_way:
                catch_up.watchers.pop(watcher, None)

    # --- reads --------------------------------------------------------------------------------

    def next_reads(self) -> list[CatchUp]:
        """What to read now. Each has to come back through `answered` or `failed`."""
        reads: list[CatchUp] = []
        if self._waiting and len(self._under_way) < WATCH_CATCH_UPS_MAX:
            self._catch_up_from_memory()
            ranges = len({watcher.bucket for watcher in self._waiting})
            while self._waiting and len(self._under_way) < WATCH_CATCH_UPS_MAX:
                catch_up = self._gather(alone=ranges <= WATCH_CATCH_UP_RANGES_MAX)
                self._under_way[catch_up] = None
                reads.append(catch_up)
        return reads

    def _gather(self, *, alone: bool) -> CatchUp:
        """The watcher that has waited longest, and who can share its read."""
        oldest = next(iter(self._waiting))
        last = oldest.position + WATCH_CATCH_UP_WINDOW_REVISIONS
        candidates = oldest.bucket.watchers if alone else self._waiting
        watchers = {
            watcher: None
            for watcher in candidates
            if watcher in self._waiting and oldest.position <= watcher.position <= last
        }
        for watcher in watchers:
            del self._waiting[watcher]
        assert self._hub.position is not None
        request = HistoryRequest(
            key=oldest.bucket.key if alone else b"\0",
            range_end=oldest.bucket.range_end if alone else b"\0",
            from_revision=oldest.position,
            to_revision=self._hub.position,
            with_previous=any(watcher.with_previous for watcher in watchers),
            revisions_max=WATCH_CATCH_UP_REVISIONS,
            bytes_max=WATCH_CATCH_UP_BYTES,
        )
        return CatchUp(request, oldest.bucket if alone else None, watchers)

    def failed(self, catch_up: CatchUp) -> None:
        """No member has answered it: its watchers wait again."""
        del self._under_way[catch_up]
        for watcher in catch_up.watchers:
            self.wait(watcher)

    def answered(self, catch_up: CatchUp, reply: HistoryReply) -> None:
        """Whoever is still above the compact revision, but was not served, waits again."""
        assert reply.outcome is Outcome.ANSWERED, f"{reply.outcome} is no answer"
        del self._under_way[catch_up]
        first = catch_up.request.from_revision
        hub = self._hub
        if reply.compact_revision > first:
            for watcher in list(catch_up.watchers):
                if watcher.position < reply.compact_revision:
                    hub.cancel_compacted(watcher, reply.compact_revision)
                else:
                    self.wait(watcher)
            hub.schedule()
            return
        assert first <= reply.through_revision <= catch_up.request.to_revision, (
            f"history through {reply.through_revision} for {first} to {catch_up.request.to_revision}"
        )
        piece = Piece(first, reply.through_revision, reply, hub.identity)
        if catch_up.bucket is not None:
            hits = {catch_up.bucket: list(range(len(piece.keys)))}
        else:
            hits = hub.hits_of(piece)
        variants: dict[Bucket, Variants] = {}
        for watcher in catch_up.watchers:
            watcher.unchecked = False
            self._serve(watcher, piece, hits.get(watcher.bucket, []), variants)
        hub.schedule()

    def _serve(
        self, watcher: Watcher, piece: Piece, hits: list[int], variants: dict[Bucket, Variants]
    ) -> bool:
        """Give a watcher a piece that begins at or below its position. False if it is parked now."""
        if watcher.position > piece.through:
            self._hub.move_on(watcher, watcher.position)
            return True
        of_bucket = variants.setdefault(watcher.bucket, {})
        stopped_at = self._hub.deliver(watcher, piece, hits, of_bucket)
        if stopped_at is not None:
            self._hub.park(watcher, stopped_at)
            return False
        self._hub.move_on(watcher, piece.through + 1)
        return True

    def _catch_up_from_memory(self) -> None:
        """Serve those whose position is above the floor; they are synced then, or parked."""
        served = [watcher for watcher in self._waiting if self._in_memory(watcher)]
        if not served:
            return
        for watcher in served:
            del self._waiting[watcher]
        buckets = {watcher.bucket for watcher in served}
        lowest = min(watcher.position for watcher in served)
        for piece in list(self._recent):
            if piece.through < lowest:
                continue
            hits = self._hits_in_memory(piece, buckets)
            variants: dict[Bucket, Variants] = {}
            served = [
                watcher
                for watcher in served
                if self._serve_from_memory(watcher, piece, hits.get(watcher.bucket, []), variants)
            ]

    def _in_memory(self, watcher: Watcher) -> bool:
        if watcher.unchecked or watcher.position <= self._floor:
            return False
        return not watcher.with_previous or all(
            piece.previous is not None for piece in self._recent if piece.through >= watcher.position
        )

    def _serve_from_memory(
        self, watcher: Watcher, piece: Piece, hits: list[int], variants: dict[Bucket, Variants]
    ) -> bool:
        if watcher.position > piece.through:
            return True
        going_on = self._serve(watcher, piece, hits, variants)
        self._waiting.pop(watcher, None)  # for as long as the next piece is in memory too
        return going_on

    def _hits_in_memory(self, piece: Piece, buckets: set[Bucket]) -> dict[Bucket, list[int]]:
        if len(buckets) > 4:
            return self._hub.hits_of(piece)
        return {
            bucket: [place for place, key in enumerate(piece.keys) if bucket.holds(key)] for bucket in buckets
        }
