"""The members of the cluster: who they are, and who of them votes.

The list is replicated state. It begins with the founders, which every member knows from the cluster's
specification, and is changed by commands, one a log entry. A change counts from the moment at which its
entry is applied; consensus asks for `membership` then.

What can be decided from the list alone is decided here, when the command is applied, with etcd's own
errors. What needs the leader's view of its peers (is the learner ready, are enough members up) is
checked by the leader before it proposes: it must not be asked again here, where every member has to
come to the same answer.

A removed id never comes back. Otherwise this could happen: 1. Member 5 votes in term 8, and is removed
while it is down. 2. A new, empty member 5 is added. 3. It knows of no vote in term 8, and votes again.
So removed ids are remembered for ever; each takes a few bytes.

A store that was never told of a change holds no item of this part, and the founders are its members:
nothing has to be written when a cluster is created. The first change writes the whole list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from etcray_storage import commands, errors, wire
from etcray_storage.errors import error_by_number
from etcray_storage.mvcc.rows import StateItem
from etcray_storage.types import NOBODY, MemberId, Membership

PART = "member"

LEARNERS_MAX: Final = 1
"""etcd's default. Every member must have the same, because it is checked at apply."""

_ID_MAX: Final = (1 << 64) - 1
_REMOVED: Final = b""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member: etcd's `Member` message."""

    id: MemberId
    name: str
    """Empty: it was added, and has not started yet."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False

    @property
    def is_started(self) -> bool:
        return bool(self.name)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Member).decode


class Members:
    """The replicated list. Its public fields are replaced as a whole, never changed, so that other
    threads may look at them without a lock."""

    def __init__(self, founders: Sequence[Member]) -> None:
        self._members: dict[MemberId, Member] = {}
        self._is_stored = False
        """The tables hold the list, or will with the next flush. Until then it is the founders'."""
        self._dirty: set[MemberId] = set()
        self.effects: list[bytes] = []
        """For the state hash: what changed since the owner emptied it, before each entry."""
        self.removed: frozenset[MemberId] = frozenset()
        """Ids that may never be used again."""
        self.all: tuple[Member, ...] = ()
        """Ordered by id, as etcd lists them."""
        self.membership = Membership()
        self.list_body = b""
        """The body of a MemberListResponse."""
        self._set(founders)

    # --- commands -----------------------------------------------------------------------------
    def add(self, command: commands.MemberAdd) -> bytes:
        """The body of the MemberAddResponse. Raises MEMBER_NOT_FOUND for a removed id, MEMBER_EXIST,
        PEER_URL_EXIST, TOO_MANY_LEARNERS: in etcd's order."""
        if not NOBODY < command.id <= _ID_MAX:
            raise error_by_number(errors.MALFORMED_REQUEST.number)
        if command.id in self.removed:
            raise error_by_number(errors.MEMBER_NOT_FOUND.number)
        if command.id in self._members:
            raise error_by_number(errors.MEMBER_EXIST.number)
        self._refuse_known_urls(command.peer_urls, NOBODY)
        if command.is_learner and len(self.membership.learners) >= LEARNERS_MAX:
            raise error_by_number(errors.TOO_MANY_LEARNERS.number)
        member = Member(command.id, command.name, command.peer_urls, (), command.is_learner)
        self._change(member)
        return wire.bytes_field(2, _message(member)) + self._repeated(3)

    def promote(self, command: commands.MemberPromote) -> bytes:
        """The body of the MemberPromoteResponse. Raises MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER."""
        member = self._known(command.id)
        if not member.is_learner:
            raise error_by_number(errors.MEMBER_NOT_LEARNER.number)
        self._change(msgspec.structs.replace(member, is_learner=False))
        return self.list_body

    def remove(self, command: commands.MemberRemove) -> bytes:
        """The body of the MemberRemoveResponse. Raises MEMBER_NOT_FOUND, and MEMBER_NOT_ENOUGH_STARTED
        for the last voter, without whom nothing could ever be committed again."""
        member = self._known(command.id)
        if self.membership.voters == (member.id,):
            raise error_by_number(errors.MEMBER_NOT_ENOUGH_STARTED.number)
        self.removed |= {member.id}
        self._changed(member.id, [other for other in self.all if other is not member])
        return self.list_body

    def update(self, command: commands.MemberUpdate) -> bytes:
        """The body of the MemberUpdateResponse. Raises MEMBER_NOT_FOUND, PEER_URL_EXIST."""
        member = self._known(command.id)
        self._refuse_known_urls(command.peer_urls, member.id)
        self._change(msgspec.structs.replace(member, peer_urls=command.peer_urls))
        return self.list_body

    def publish(self, command: commands.MemberPublish) -> bytes:
        """Nothing to answer. Raises MEMBER_NOT_FOUND; a name is never taken back."""
        member = self._known(command.id)
        name = command.name or member.name
        self._change(msgspec.structs.replace(member, name=name, client_urls=command.client_urls))
        return b""

    def _known(self, member: MemberId) -> Member:
        known = self._members.get(member)
        if known is None:
            raise error_by_number(errors.MEMBER_NOT_FOUND.number)
        return known

    def _refuse_known_urls(self, peer_urls: Sequence[str], owner: MemberId) -> None:
        for member in self.all:
            if member.id != owner and not set(peer_urls).isdisjoint(member.peer_urls):
                raise error_by_number(errors.PEER_URL_EXIST.number)

    def _change(self, member: Member) -> None:
        self._changed(member.id, [*(other for other in self.all if other.id != member.id), member])

    def _changed(self, member: MemberId, members: Sequence[Member]) -> None:
        if not self._is_stored:
            self._is_stored = True
            self._dirty.update(self._members)
        self._dirty.add(member)
        self._set(members)
        self.effects.append(self.list_body)

    def _set(self, members: Iterable[Member]) -> None:
        ordered = sorted(members, key=lambda member: member.id)
        self._members = {member.id: member for member in ordered}
        assert len(self._members) == len(ordered), f"{len(ordered)} members have {len(self._members)} ids"
        self.all = tuple(ordered)
        self.membership = Membership(
            voters=tuple(member.id for member in ordered if not member.is_learner),
            learners=tuple(member.id for member in ordered if member.is_learner),
        )
        self.list_body = self._repeated(2)

    def _repeated(self, field: int) -> bytes:
        return wire.repeated_bytes_field(field, [_message(member) for member in self.all])

    # --- the tables ---------------------------------------------------------------------------
    def take_items(self) -> list[StateItem]:
        """What changed since the last call, sorted for determinism."""
        items = []
        for member in sorted(self._dirty):
            known = self._members.get(member)
            value = _REMOVED if known is None else _encode(known)
            items.append(StateItem(PART, member.to_bytes(8, "big"), value))
        self._dirty.clear()
        return items

    def restore(self, items: Sequence[StateItem]) -> None:
        """Take over the list from the tables; without any item the founders stay."""
        if not items:
            return
        self._is_stored = True
        values = {MemberId(int.from_bytes(item.key, "big")): item.value for item in items}
        self.removed = frozenset(member for member, value in values.items() if value == _REMOVED)
        self._set(_decode(value) for value in values.values() if value)


def _message(member: Member) -> bytes:
    return (
        wire.varint_field(1, member.id)
        + (wire.bytes_field(2, member.name.encode()) if member.name else b"")
        + wire.repeated_bytes_field(3, [url.encode() for url in member.peer_urls])
        + wire.repeated_bytes_field(4, [url.encode() for url in member.client_urls])
        + wire.varint_field(5, member.is_learner)
    )
