"""A store that keeps all its events: the truth for validators, and the members of hub tests."""

from __future__ import annotations

from collections.abc import Mapping

from etcray.node import api
from etcray.node.event_ring import NO_EVENTS, Columns, EventRing, columns_of
from etcray_storage.mvcc.events import in_range
from etcray_storage.mvcc.rows import Change
from etcray_storage.proto.kv_pb2 import Event, KeyValue
from etcray_storage.types import MemberId, Term


class TrueStore:
    """Changes in, events out. Revisions begin at 1, as in etcd."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.history: list[Event] = []
        self.pieces: list[list[Change]] = []
        """One for each revision from 2 on."""
        self._pairs: dict[bytes, KeyValue] = {}

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put or delete these keys in one revision. Deleting what is not there does nothing."""
        main = self.revision + 1
        piece: list[Change] = []
        for key, value in changes.items():
            before = self._pairs.get(key)
            if value is None:
                if before is None:
                    continue
                del self._pairs[key]
                event = Event(type=Event.DELETE, kv=KeyValue(key=key, mod_revision=main))
                pair = b""
            else:
                created = before.create_revision if before else main
                version = before.version + 1 if before else 1
                after = KeyValue(
                    key=key, value=value, create_revision=created, mod_revision=main, version=version
                )
                self._pairs[key] = after
                event = Event(kv=after)
                pair = after.SerializeToString()
            if before is not None:
                event.prev_kv.CopyFrom(before)
            self.history.append(event)
            piece.append(Change(main, key, pair, before.SerializeToString() if before else b""))
        if piece:
            self.pieces.append(piece)
            self.revision = main

    def compact(self, revision: int) -> None:
        self.compact_revision = max(self.compact_revision, revision)

    def read(self, request: api.HistoryRequest, member: MemberId) -> api.HistoryReply:
        """A member's answer, in the shortest piece that the limits allow."""
        if request.from_revision < self.compact_revision:
            return api.HistoryReply(
                api.Outcome.ANSWERED, member, Term(1), self.compact_revision,
                request.from_revision - 1, *NO_EVENTS,
            )  # fmt: skip
        taken: list[Change] = []
        count, through = 0, request.to_revision
        for piece in self.pieces[max(0, request.from_revision - 2) : request.to_revision - 1]:
            here = [c for c in piece if in_range(c.key, request.key, request.range_end)]
            if here and count == request.revisions_max:
                through = piece[0].main - 1
                break
            count += bool(here)
            taken += here
        columns = columns_of(taken, request.with_previous)
        if request.with_previous:
            gone = [c.main - 1 < self.compact_revision for c in taken]
            previous = [b"" if g else p for g, p in zip(gone, columns.previous, strict=True)]
            columns = Columns(columns.revisions, columns.keys, columns.events, previous)
        return api.HistoryReply(
            api.Outcome.ANSWERED, member, Term(1), self.compact_revision, through, *columns
        )


class TrueMember:
    """One member that has applied a part of the store's history."""

    def __init__(self, store: TrueStore, member: MemberId, ring_revisions: int) -> None:
        self.store = store
        self.id = member
        self.applied = 1
        self._ring_revisions = ring_revisions
        self.ring = EventRing(1, -1, revisions_max=ring_revisions)

    def apply(self, count: int) -> None:
        """As a member does: an entry at a time."""
        for piece in self.store.pieces[self.applied - 1 : self.applied - 1 + count]:
            self.applied = piece[0].main
            self.ring.append(piece, self.applied, self.store.compact_revision)

    def restart(self) -> None:
        """Memory is lost; so the ring begins at what is applied."""
        self.ring = EventRing(self.applied, self.store.compact_revision, revisions_max=self._ring_revisions)

    def install_snapshot(self) -> None:
        """Skip to the store's state."""
        self.applied = self.store.revision
        self.ring.reset(self.applied, self.store.compact_revision)

    def watch(self, poll: api.WatchPoll) -> api.WatchEvents:
        """The answer of a poll that does not wait."""
        found = self.ring.wait_for(poll.after_revision, poll.bytes_max, 0.0)
        if found is None:
            return api.WatchEvents(api.Outcome.NOT_LEADER, self.id, Term(1), 0, -1, False, *NO_EVENTS)
        return api.WatchEvents(
            api.Outcome.ANSWERED,
            self.id,
            Term(1),
            found.revision,
            found.compact_revision,
            found.missed,
            *columns_of(found.changes, poll.with_previous),
        )

    def history(self, request: api.HistoryRequest) -> api.HistoryReply | None:
        """None if this member lags behind what is asked."""
        return None if request.to_revision > self.applied else self.store.read(request, self.id)
