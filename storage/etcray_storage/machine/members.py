"""The members of the cluster, as clients see them. The membership is fixed for now."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcray_storage import wire
from etcray_storage.types import MemberId


class Member(msgspec.Struct, frozen=True):
    """One member: etcd's `Member` message."""

    id: MemberId
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False


def member_list_response(members: Sequence[Member]) -> bytes:
    """The body of a MemberListResponse, in the given order."""
    return wire.repeated_bytes_field(2, [_encode(member) for member in members])


def _encode(member: Member) -> bytes:
    return (
        wire.varint_field(1, member.id)
        + (wire.bytes_field(2, member.name.encode()) if member.name else b"")
        + wire.repeated_bytes_field(3, [url.encode() for url in member.peer_urls])
        + wire.repeated_bytes_field(4, [url.encode() for url in member.client_urls])
        + wire.varint_field(5, member.is_learner)
    )
