"""The history's ways to the members by streams, in place of Ray calls; see `etcray.transport`."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from etcray.history.channels import MemberUnreachableError
from etcray.transport.addresses import StreamAddress, UnreachableError
from etcray.transport.frames import Kind
from etcray.transport.handshake import Credentials
from etcray.transport.member_calls import MemberCalls
from etcray_storage.types import MemberId


class StreamMemberChannel:
    """Calls one member."""

    def __init__(self, credentials: Credentials, member: MemberId, address: StreamAddress) -> None:
        self.address = address
        """Replaced when the member listens elsewhere; the next connection goes there."""
        self._calls = MemberCalls(credentials, member, "history", lambda: self.address)

    def history_rows(self, request: bytes, timeout_seconds: float) -> bytes:
        return self._call(Kind.HISTORY_ROWS, request, timeout_seconds)

    def read(self, request: bytes, timeout_seconds: float) -> bytes:
        return self._call(Kind.READ, request, timeout_seconds)

    def close(self) -> None:
        """Of what is idle."""
        self._calls.close()

    def _call(self, kind: Kind, request: bytes, timeout_seconds: float) -> bytes:
        try:
            return self._calls.call(kind, request, timeout_seconds)
        except UnreachableError as error:
            raise MemberUnreachableError(str(error)) from error


class HistoryStreams:
    """The ways to all members. Thread-safe: introductions may overlap."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._channels: dict[MemberId, StreamMemberChannel] = {}

    def set_addresses(self, addresses: Mapping[int, StreamAddress]) -> None:
        """Of all members; those that are not among them are none any more."""
        with self._lock:
            self._set_addresses(addresses)

    def _set_addresses(self, addresses: Mapping[int, StreamAddress]) -> None:
        channels: dict[MemberId, StreamMemberChannel] = {}
        for number, address in addresses.items():
            member = MemberId(number)
            channel = self._channels.pop(member, None)
            if channel is None:
                channel = StreamMemberChannel(self._credentials, member, address)
            channel.address = address
            channels[member] = channel
        for gone in self._channels.values():
            gone.close()
        self._channels = channels

    @property
    def channels(self) -> dict[MemberId, StreamMemberChannel]:
        with self._lock:
            return dict(self._channels)
