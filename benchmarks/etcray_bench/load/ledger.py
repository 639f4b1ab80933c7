"""What the store has said that it did: what must be there afterwards.

Each answer to a write names its revision, and the highest revision of a key says who wrote it last, however
many wrote at once. So after the run every key's value, revision and number of writes are known, without
the generator having to keep writers apart. Writes without an answer are remembered too: each of them may
have happened or not.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import msgspec

from etcray_bench.load.errors import CheckFailedError

NOTHING: Final = -1
"""The stamp of a key that is not there."""


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger as it travels from one process to another."""

    revisions: bytes
    stamps: bytes
    puts: bytes
    deleted: list[int]
    unknown: dict[int, list[int]]
    leases: list[int]
    revoked: list[int]
    uncertain_leases: list[int]
    changes: list[tuple[int, int, int]]


class Ledger:
    """Keys are known by their numbers, which may be as large as they like to be but leave no gaps."""

    def __init__(self, keys: int) -> None:
        self.revisions = array("q", bytes(8 * keys))
        """Of each key's latest change that is known here; 0: none is."""
        self.stamps = array("q", [NOTHING]) * keys
        """What that change left."""
        self.puts = array("q", bytes(8 * keys))
        """Acknowledged to this ledger."""
        self.deleted: set[int] = set()
        """Keys that were deleted at least once: the store counts their writes anew, so we do not."""
        self.unknown: dict[int, list[int]] = {}
        """By key, the writes that may have happened or not: their stamps."""
        self.leases: set[int] = set()
        self.revoked: set[int] = set()
        self.uncertain_leases: set[int] = set()
        self.changes: list[tuple[int, int, int]] | None = None
        """Revision, key and stamp of all changes, if somebody watches."""

    def grow(self, keys: int) -> None:
        more = keys - len(self.revisions)
        if more > 0:
            self.revisions.extend(array("q", bytes(8 * more)))
            self.stamps.extend(array("q", [NOTHING]) * more)
            self.puts.extend(array("q", bytes(8 * more)))

    def put(self, key: int, revision: int, stamp: int) -> None:
        if revision > self.revisions[key]:
            self.revisions[key] = revision
            self.stamps[key] = stamp
        self.puts[key] += 1
        if self.changes is not None:
            self.changes.append((revision, key, stamp))

    def delete(self, key: int, revision: int) -> None:
        self.deleted.add(key)
        if revision > self.revisions[key]:
            self.revisions[key] = revision
            self.stamps[key] = NOTHING
        if self.changes is not None:
            self.changes.append((revision, key, NOTHING))

    def in_doubt(self, key: int, stamp: int) -> None:
        """A put, or with NOTHING a deletion, that was not answered."""
        self.unknown.setdefault(key, []).append(stamp)
        if stamp == NOTHING:
            self.deleted.add(key)

    def seen(self, key: int, revision: int, stamp: int, floor: int) -> None:
        """A read found this. `floor` is the revision that was known of the key when the read began, or 0
        if an old value will do."""
        known = self.revisions[key]
        if revision < floor:
            raise CheckFailedError(
                f"key {key} was changed at revision {floor}, and a later read found the one of {revision}"
            )
        if revision > known:
            self.revisions[key] = revision
            self.stamps[key] = stamp
        elif revision == known and stamp != self.stamps[key]:
            raise CheckFailedError(f"key {key} has two values at revision {revision}")

    # --- from process to process -----------------------------------------------------------------

    def state(self) -> LedgerState:
        return LedgerState(
            revisions=self.revisions.tobytes(),
            stamps=self.stamps.tobytes(),
            puts=self.puts.tobytes(),
            deleted=list(self.deleted),
            unknown=self.unknown,
            leases=list(self.leases),
            revoked=list(self.revoked),
            uncertain_leases=list(self.uncertain_leases),
            changes=self.changes or [],
        )

    @classmethod
    def continued(cls, state: LedgerState) -> Ledger:
        """Knows what is there, and has acknowledged nothing yet."""
        made = cls(0)
        made.revisions.frombytes(state.revisions)
        made.stamps.frombytes(state.stamps)
        made.puts.frombytes(bytes(len(state.puts)))
        return made

    @classmethod
    def merged(cls, states: Iterable[LedgerState]) -> Ledger:
        """What all of them know together. Raises CheckFailedError if they contradict each other."""
        whole = cls(0)
        whole.changes = []
        for state in states:
            part = cls.continued(state)
            part.puts = array("q")
            part.puts.frombytes(state.puts)
            whole.grow(len(part.revisions))
            for key, (revision, stamp, puts) in enumerate(
                zip(part.revisions, part.stamps, part.puts, strict=True)
            ):
                if revision:
                    whole.seen(key, revision, stamp, 0)
                whole.puts[key] += puts
            whole.deleted.update(state.deleted)
            for key, stamps in state.unknown.items():
                whole.unknown.setdefault(key, []).extend(stamps)
            whole.leases.update(state.leases)
            whole.revoked.update(state.revoked)
            whole.uncertain_leases.update(state.uncertain_leases)
            whole.changes.extend(state.changes)
        return whole
