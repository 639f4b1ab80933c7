"""The state hash: one number over everything that was ever applied, to find members that diverge.

It rolls: each entry's number is computed from the one before and from what the entry did. So two members
with the same number at the same index have done the same since the beginning, and members that differ
once differ ever after, whoever looks whenever. It is state like any other: stored with the tables,
carried by snapshots.

What goes in, for each entry: its index and term; the replicated clock, the revision and the compact
revision after it; every answer, a refused or repeated batch's too; every changed pair with all its
numbers; and what has no answer (`effects`): leases, alarms, members. So it covers what the state machine
*did*, not only what it was told: members with the same log and a different state are found as soon as an
entry touches the difference.

CRC-32 and Adler-32 side by side, because both run at more than 2 GB/s everywhere and go on from a
previous value. They are no defence against somebody who wants them to collide. Cost: 0.2 us for each put
of 256 bytes, and 1.1 us for each entry; so 1.3 us where an entry holds one put, 0.3 us where it holds 16.

A store that was written before there was a state hash has none: `UNKNOWN`, until a snapshot of a member
that has one is installed. Nothing may be concluded from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from struct import Struct
from typing import Final

import msgspec

from etcray_storage import wire
from etcray_storage.commands import BatchAnswer
from etcray_storage.mvcc.rows import Change, StateItem
from etcray_storage.types import Entry

PART = "state-hash"

UNKNOWN: Final = 0

_MASK: Final = (1 << 32) - 1
_FIRST: Final = 1
"""Of a store before its first entry: Adler-32 begins with 1."""
_HEADER: Final = Struct(">QQqqq")
_encode_answer = msgspec.msgpack.Encoder().encode


class StateHash:
    """The number as of the last applied entry."""

    def __init__(self) -> None:
        self.value = _FIRST
        """64 bits; `UNKNOWN`, or comparable with that of any member at the same index."""
        self._taken = _FIRST

    def advance(
        self,
        entry: Entry,
        time_ms: int,
        revision: int,
        compact_revision: int,
        answers: Sequence[BatchAnswer],
        changes: Sequence[Change],
        effects: Sequence[bytes],
    ) -> None:
        """Take in what an entry did."""
        if self.value == UNKNOWN:
            return
        parts = [_HEADER.pack(entry.index, entry.term, time_ms, revision, compact_revision)]
        parts += [_encode_answer(answer) for answer in answers]
        parts += [change[2] or wire.delete_event(change[1], change[0]) for change in changes]
        parts += effects
        done = b"".join(parts)
        upper, lower = self.value >> 32, self.value & _MASK
        self.value = zlib.crc32(done, upper) << 32 | zlib.adler32(done, lower)
        # Adler-32 is 0 only for sums that nothing but a wanted collision hits; a hash that became
        # `UNKNOWN` would be worse than one that is a little less even.
        self.value = self.value or _FIRST

    def take_items(self) -> list[StateItem]:
        """The number, if it changed since the last call."""
        if self.value == self._taken:
            return []
        self._taken = self.value
        return [StateItem(PART, b"", self.value.to_bytes(8, "big"))]

    def restore(self, item: StateItem | None) -> None:
        """Take over the number from the tables, or learn that they have none."""
        if item is None:
            self.value = UNKNOWN
            return
        assert item.value is not None, "the state hash was removed"
        self.value = self._taken = int.from_bytes(item.value, "big")
