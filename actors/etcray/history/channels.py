"""The way to the members, as history needs it: Ray in the actor, direct calls in tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from etcray_storage.types import MemberId


class MemberUnreachableError(Exception):
    """The call failed or took too long. It may go on behind our back."""


class MemberChannel(Protocol):
    """The way to one member. Every method may raise `MemberUnreachableError`."""

    def history_rows(self, request: bytes, timeout_seconds: float) -> bytes:
        """Give an encoded `node.api.HistoryRowsRequest`, get an encoded `HistoryRowsReply`."""

    def read(self, request: bytes, timeout_seconds: float) -> bytes:
        """Give an encoded `node.api.ReadRequest`, get an encoded `ReadReply`."""


class Channels:
    """The current ways to all members, for the threads that call them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[MemberId, MemberChannel] = {}

    def set(self, channels: Mapping[MemberId, MemberChannel]) -> None:
        with self._lock:
            self._channels = dict(channels)

    @property
    def members(self) -> list[MemberId]:
        with self._lock:
            return list(self._channels)

    def get(self, member: MemberId) -> MemberChannel:
        """Raises MemberUnreachableError for a member that is not known."""
        with self._lock:
            channel = self._channels.get(member)
        if channel is None:
            raise MemberUnreachableError(f"member {member:x} is not known")
        return channel
