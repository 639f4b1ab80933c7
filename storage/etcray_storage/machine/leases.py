"""Leases: which there are, for how long they were granted, and what ends with them.

Nobody here knows what time it is. That a lease has ended is decided by the leader, by its own clock
(`etcray.node.lessor`), and arrives as a command, `LeaseExpiry`, like everything else that changes the
state. What is agreed on is only: a lease exists, its granted TTL, and how much of it was left when the
leader last put that on record (`LeaseCheckpoint`).

The keys of a lease are not kept here either: each pair carries its lease, and the key index finds the
pairs by it. So a lease and its keys cannot disagree, and a restart has nothing to make whole.

A story about ids, which clients may choose: 1. The leader sees that lease 7 has ended, and proposes its
expiry. 2. In the meantime a client's revoke of 7 has entered the log, and another client's grant of 7.
3. The expiry is applied, and would end a lease that is a moment old. Therefore a lease remembers the
entry that granted it, and a leader's command says up to which entry its view of the leases reaches: a
lease that was granted later is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

import msgspec

from etcray_storage import errors, wire
from etcray_storage.commands import LeaseCheckpoint, LeaseExpiry
from etcray_storage.errors import error_by_number
from etcray_storage.limits import LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN
from etcray_storage.mvcc.rows import StateItem
from etcray_storage.mvcc.store import Store
from etcray_storage.proto.rpc_pb2 import LeaseGrantRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest
from etcray_storage.types import Index

PART = "lease"

NO_LEASE: Final = 0

_ID = Struct(">q")
_VALUE = Struct(">qqQ")


class Lease(msgspec.Struct, gc=False):
    """One lease, as all members know it."""

    ttl_seconds: int
    """As granted."""
    remaining_ms: int
    """What was left at the last checkpoint; the whole TTL if there was none. The next leader lets the
    lease live for this long, counted from the beginning of its leadership."""
    granted_index: Index
    """The entry that granted it: tells it from an earlier lease of the same id."""

    def packed(self) -> bytes:
        """As it is stored."""
        return _VALUE.pack(self.ttl_seconds, self.remaining_ms, self.granted_index)


class Leases:
    """Every lease. Not thread-safe; changed only by `StateMachine`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leases: dict[int, Lease] = {}
        self._dirty: set[int] = set()
        self._changed: list[int] = []
        self.effects: list[bytes] = []
        """For the state hash: what changed since the owner emptied it, before each entry."""

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease: int) -> Lease | None:
        return self._leases.get(lease)

    def items(self) -> Iterator[tuple[int, Lease]]:
        """Every lease with its id, in an order that may differ between members."""
        return iter(self._leases.items())

    def key_count(self, lease: int) -> int:
        """How many keys would be deleted if the lease ended now."""
        return self._store.index.attached_count(lease)

    def take_changed(self) -> list[int]:
        """The leases that were granted or revoked since the last call; a lease that both happened to
        is there twice. To be called after each entry, so that it stays short."""
        changed, self._changed = self._changed, []
        return changed

    # --- commands -----------------------------------------------------------------------------
    def grant(self, request: LeaseGrantRequest, index: Index) -> bytes:
        """The body of the LeaseGrantResponse. A TTL below the minimum is raised to it.

        Raises LEASE_NOT_FOUND for id 0 (a gateway has put a random one in its place before), then
        LEASE_TTL_TOO_LARGE, LEASE_EXIST.
        """
        if request.ID == NO_LEASE:
            raise error_by_number(errors.LEASE_NOT_FOUND.number)
        if request.TTL > LEASE_TTL_SECONDS_MAX:
            raise error_by_number(errors.LEASE_TTL_TOO_LARGE.number)
        if request.ID in self._leases:
            raise error_by_number(errors.LEASE_EXIST.number)
        ttl_seconds = max(request.TTL, LEASE_TTL_SECONDS_MIN)
        self._leases[request.ID] = Lease(ttl_seconds, ttl_seconds * 1000, index)
        self._note(request.ID)
        return wire.varint_field(2, request.ID) + wire.varint_field(3, ttl_seconds)

    def revoke(self, lease: int, time_ms: int) -> None:
        """End a lease, and delete its keys, in their order and in one revision. Raises
        LEASE_NOT_FOUND."""
        if lease not in self._leases:
            raise error_by_number(errors.LEASE_NOT_FOUND.number)
        store = self._store
        store.begin(time_ms)
        for key in store.index.attached(lease):
            store.delete(key, b"")
        store.end()
        del self._leases[lease]
        self._note(lease)

    def expire(self, command: LeaseExpiry, time_ms: int) -> None:
        """Revoke leases, each in a revision of its own."""
        for lease in command.leases:
            if self._is_meant(lease, command.seen_index):
                self.revoke(lease, time_ms)

    def checkpoint(self, command: LeaseCheckpoint) -> None:
        """Put on record what leases have left; never more than was granted."""
        for lease, remaining_ms in zip(command.leases, command.remaining_ms, strict=False):
            if self._is_meant(lease, command.seen_index):
                known = self._leases[lease]
                known.remaining_ms = min(max(remaining_ms, 0), known.ttl_seconds * 1000)
                self._dirty.add(lease)
                self.effects.append(_ID.pack(lease) + known.packed())

    def _is_meant(self, lease: int, seen_index: int) -> bool:
        known = self._leases.get(lease)
        return known is not None and known.granted_index <= seen_index

    def _note(self, lease: int) -> None:
        self._dirty.add(lease)
        self._changed.append(lease)
        known = self._leases.get(lease)
        self.effects.append(_ID.pack(lease) + (b"" if known is None else known.packed()))

    # --- reads --------------------------------------------------------------------------------
    def time_to_live(self, request: LeaseTimeToLiveRequest) -> bytes:
        """The body of the LeaseTimeToLiveResponse. A lease that does not exist has TTL -1, and that
        is no error. The TTL is that of the last checkpoint: only the leader knows better."""
        known = self._leases.get(request.ID)
        if known is None:
            return wire.varint_field(2, request.ID) + wire.varint_field(3, -1)
        return (
            wire.varint_field(2, request.ID)
            + wire.varint_field(3, known.remaining_ms // 1000)
            + wire.varint_field(4, known.ttl_seconds)
            + wire.repeated_bytes_field(5, self._store.index.attached(request.ID) if request.keys else [])
        )

    def list_all(self, _request: LeaseLeasesRequest) -> bytes:
        """The body of the LeaseLeasesResponse, ordered by id. (etcd orders by the answering member's
        idea of when they end, which only a leader has.)"""
        return wire.repeated_bytes_field(2, [wire.varint_field(1, lease) for lease in sorted(self._leases)])

    # --- the tables ---------------------------------------------------------------------------
    def take_items(self) -> list[StateItem]:
        """What changed since the last call, sorted for determinism."""
        items = []
        for lease in sorted(self._dirty):
            known = self._leases.get(lease)
            items.append(StateItem(PART, _ID.pack(lease), None if known is None else known.packed()))
        self._dirty.clear()
        return items

    def restore(self, items: list[StateItem]) -> None:
        """Take over all leases from the tables; the keys must be there already."""
        assert not self._leases, f"restore into {len(self._leases)} leases"
        for item in items:
            if item.value is not None:
                ttl_seconds, remaining_ms, index = _VALUE.unpack(item.value)
                (lease,) = _ID.unpack(item.key)
                self._leases[lease] = Lease(ttl_seconds, remaining_ms, index)
        unknown = [lease for lease in self._store.index.leases() if lease not in self._leases]
        assert not unknown, f"{len(unknown)} leases have keys and do not exist, such as {unknown[0]}"
