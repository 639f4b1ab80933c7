"""WatchResponses, put together from parts that are bytes already.

An event is encoded once, by the member that sent it. What a range's watchers get of a batch is joined
once for all that want the same of it (`Piece.encode`); for each watcher only the head, with its id, is
put in front.

How a batch is cut into responses: all events of one revision go into one response, and several revisions
go together up to a size. Only a watcher that asked for fragments gets a large revision in parts, of which
all but the last say so. `header.revision` promises that the watcher has everything up to it once it has
read this response, so only the batch's last response may name the whole batch's revision.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from etcray.gateway.watch_stream import Watcher
from etcray.node.api import HistoryReply, WatchEvents
from etcray_storage import wire
from etcray_storage.limits import WATCH_FRAGMENT_BYTES, WATCH_RESPONSE_BYTES_MAX

_FRAGMENT: Final = b"\x38\x01"
_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_EVENT_TAG: Final = b"\x5a"
_DELETION: Final = 0x08
"""An event's first byte if it has a type, which only deletions have."""

WHOLE_STREAM: Final = -1
"""The watch id of answers that are not about one watcher."""


class Identity(NamedTuple):
    """What every header says."""

    cluster: int
    member: int
    term: int


class Encoded(NamedTuple):
    """What is the same in a response to several watchers."""

    header: bytes
    tail: bytes
    """Everything behind the watch id."""
    first_revision: int
    continued: bool
    """Part of the revision whose first part is in the response before: both are sent, or neither."""


class Piece:
    """A stretch of history: all events above one revision and up to another, or those of some range."""

    __slots__ = ("events", "first", "identity", "keys", "previous", "revisions", "through")

    def __init__(
        self, first: int, through: int, reply: WatchEvents | HistoryReply, identity: Identity
    ) -> None:
        self.first = first
        self.through = through
        self.revisions = reply.revisions
        self.keys = reply.keys
        self.events = reply.events
        self.previous: Sequence[bytes] | None = (
            reply.previous if len(reply.previous) == len(reply.events) else None
        )
        """None if the member was not asked for them."""
        self.identity = identity
        assert len(reply.keys) == len(reply.events) == len(reply.revisions), "events of unequal columns"
        if self.revisions:
            assert first <= self.revisions[0] <= self.revisions[-1] <= through, (
                f"events {self.revisions[0]} to {self.revisions[-1]} in a piece {first} to {through}"
            )

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.events)) + sum(map(len, self.previous or ())) + 100 * len(self.events)

    def from_revision(self, hits: Sequence[int], revision: int) -> int:
        """The first of `hits` (places of events) that is at or above a revision."""
        if not hits or self.revisions[hits[0]] >= revision:
            return 0
        return bisect_left(hits, revision, key=self.revisions.__getitem__)

    def encode(self, hits: Sequence[int], watcher: Watcher) -> list[Encoded]:
        """The responses to all watchers that want the same of the same events."""
        responses: list[Encoded] = []
        group: list[bytes] = []
        group_size, group_first, last = 0, 0, 0
        for revision, fields, size in self._by_revision(hits, watcher):
            if group and group_size + size > WATCH_RESPONSE_BYTES_MAX:
                responses += self._responses(group, group_size, group_first, last, watcher.fragment)
                group, group_size = [], 0
            if not group:
                group_first = revision
            group += fields
            group_size += size
            last = revision
        if group:
            responses += self._responses(group, group_size, group_first, self.through, watcher.fragment)
        return responses

    def _by_revision(self, hits: Sequence[int], watcher: Watcher) -> list[tuple[int, list[bytes], int]]:
        """The wanted events of each revision as fields of a response, and their size."""
        found: list[tuple[int, list[bytes], int]] = []
        fields: list[bytes] = []
        size, current = 0, 0
        for place in hits:
            event = self.events[place]
            if watcher.no_delete if event[0] == _DELETION else watcher.no_put:
                continue
            if watcher.with_previous:
                assert self.previous is not None, "previous pairs are wanted and not here"
                if self.previous[place]:
                    event += wire.bytes_field(3, self.previous[place])
            field = _EVENT_TAG + wire.varint(len(event)) + event
            if self.revisions[place] != current:
                if fields:
                    found.append((current, fields, size))
                    fields, size = [], 0
                current = self.revisions[place]
            fields.append(field)
            size += len(field)
        if fields:
            found.append((current, fields, size))
        return found

    def _responses(
        self, fields: list[bytes], size: int, first: int, revision: int, fragment: bool
    ) -> list[Encoded]:
        header = header_of(self.identity, revision)
        if not fragment or size < WATCH_FRAGMENT_BYTES:
            return [Encoded(header, b"".join(fields), first, False)]
        parts: list[list[bytes]] = [[]]
        part_size = 0
        for field in fields:
            if parts[-1] and part_size + len(field) >= WATCH_FRAGMENT_BYTES:
                parts.append([])
                part_size = 0
            parts[-1].append(field)
            part_size += len(field)
        return [
            Encoded(
                header,
                (_FRAGMENT if number < len(parts) - 1 else b"") + b"".join(part),
                first,
                number > 0,
            )
            for number, part in enumerate(parts)
        ]


def header_of(identity: Identity, revision: int) -> bytes:
    return wire.response_header(identity.cluster, identity.member, revision, identity.term)


def id_field(watch_id: int) -> bytes:
    return wire.varint_field(2, watch_id)


def created(identity: Identity, revision: int, watch_id: int) -> bytes:
    return header_of(identity, revision) + id_field(watch_id) + _CREATED


def refused(identity: Identity, revision: int, reason: str) -> bytes:
    """The answer to a creation that came to nothing: created and canceled at once."""
    head = header_of(identity, revision) + id_field(WHOLE_STREAM)
    return head + _CREATED + _CANCELED + wire.bytes_field(6, reason.encode())


def canceled(identity: Identity, revision: int, watch_id: int, compact_revision: int = 0) -> bytes:
    """Cancelled by the client, or because of a compaction: then the header has revision 0, as in etcd."""
    head = header_of(identity, 0 if compact_revision else revision) + id_field(watch_id)
    return head + _CANCELED + wire.varint_field(5, compact_revision)


def progress(identity: Identity, revision: int, watch_id: int) -> bytes:
    return header_of(identity, revision) + id_field(watch_id)
