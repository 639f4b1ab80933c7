"""What a person may want of the membership, and what the supervisor can do about it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from etcray_storage.commands import CommandKind
from etcray_storage.types import MemberId


class Resize(msgspec.Struct, frozen=True, tag=True):
    """So many voters."""

    voters: int


class Add(msgspec.Struct, frozen=True, tag=True):
    """A member of this name, which the caller chose: so asking twice adds once."""

    name: str
    is_learner: bool = False
    """It stays a learner. Otherwise it is promoted as soon as it has caught up."""


class Remove(msgspec.Struct, frozen=True, tag=True):
    """That member gone. If it leads, it hands its leadership over first."""

    member: MemberId


class Promote(msgspec.Struct, frozen=True, tag=True):
    """That learner a voter."""

    member: MemberId


class Update(msgspec.Struct, frozen=True, tag=True):
    """Other peer URLs for that member."""

    member: MemberId
    peer_urls: tuple[str, ...]


class Lead(msgspec.Struct, frozen=True, tag=True):
    """That member the leader."""

    member: MemberId


Goal = Resize | Add | Remove | Promote | Update | Lead

encode_goal = msgspec.msgpack.Encoder().encode
decode_goal = msgspec.msgpack.Decoder(Goal).decode


@dataclass(frozen=True, slots=True)
class StartActor:
    """The member is in the replicated list, and nobody has made an actor for it yet."""

    member: MemberId
    name: str


@dataclass(frozen=True, slots=True)
class StopActor:
    """The member was removed: its actor ends, its directory is set aside."""

    name: str


@dataclass(frozen=True, slots=True)
class Propose:
    """One member command through the log. Whether it took effect is seen in the replicated list, so
    proposing it twice is harmless: a second addition has the same id and is refused."""

    kind: CommandKind
    content: msgspec.Struct
    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leader gives its leadership to another voter."""

    to: MemberId
    reason: str


Change = Propose | HandOver
