"""Words of the Raft paper and of etcd, as types. Units and meanings are in the names.

All of these are plain integers or frozen structs: they can be compared, hashed, encoded with msgpack
and sent anywhere. `MemberId` 0 means nobody, `Index` 0 means before the first entry.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NewType

import msgspec

Term = NewType("Term", int)
Index = NewType("Index", int)
MemberId = NewType("MemberId", int)
ClusterId = NewType("ClusterId", int)
Revision = NewType("Revision", int)
Incarnation = NewType("Incarnation", int)
"""How often a member's data directory was opened. A higher one fences every lower one."""

NOBODY: Final = MemberId(0)


class EntryKind(IntEnum):
    """What an entry's data holds."""

    COMMANDS = 0
    """An encoded `commands.Payload`. Empty data is the no-op that opens a leader's term."""

    MEMBERSHIP = 1
    """The same with one batch of one command, which changes the membership. The new one counts from the
    moment at which the entry is applied."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the replicated log (Raft paper, figure 2)."""

    index: Index
    term: Term
    kind: EntryKind
    data: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member must not forget over a crash (Raft paper, figure 2: persistent state).

    `commit` need not be durable for safety; it is stored because a restarted member can then apply
    at once what it already knew to be committed. It never goes back.
    """

    term: Term = Term(0)
    vote: MemberId = NOBODY
    commit: Index = Index(0)


class Membership(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who votes and who only listens. Both sorted, disjoint."""

    voters: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which state a snapshot holds: everything up to and including `index`."""

    index: Index
    term: Term
    membership: Membership
