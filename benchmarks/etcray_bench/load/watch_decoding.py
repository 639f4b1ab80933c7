"""Watch responses, looked at so far as the benchmark needs it.

A thousand watchers of one range get the same events in the same bytes; only the watch id differs. So a
response is cut behind its id, and the rest, its tail, is decoded once for all who get it.
"""

from __future__ import annotations

from typing import Final

from etcray_storage.proto import rpc_pb2

_HEADER_TAG: Final = 0x0A
_ID_TAG: Final = 0x10
_EVENTS_TAG: Final = b"\x5a"


def split(message: bytes) -> tuple[int, bytes]:
    """A response's watch id, and its tail: everything behind the id."""
    if message[0] != _HEADER_TAG or message[1] > 0x7F:
        raise ValueError(f"a response begins with {message[:2]!r}, not with a short header")
    at = 2 + message[1]
    if at == len(message) or message[at] != _ID_TAG:
        return 0, message[at:]
    byte = message[at + 1]
    if byte < 0x80:
        return byte, message[at + 2 :]
    watch_id, shift, at = byte & 0x7F, 7, at + 2
    while (byte := message[at]) >= 0x80:
        watch_id |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return watch_id | byte << shift, message[at + 1 :]


def has_events(tail: bytes) -> bool:
    """Not so: an answer to a creation, a cancellation, a progress report."""
    return tail[:1] == _EVENTS_TAG


def is_creation(tail: bytes) -> bool:
    """Whether a tail without events says that its watcher was made, and lives."""
    answer = rpc_pb2.WatchResponse.FromString(tail)
    return answer.created and not answer.canceled


def decode(tail: bytes) -> list[tuple[int, bytes, bytes]]:
    """The events of a tail: revision, key and value."""
    response = rpc_pb2.WatchResponse.FromString(tail)
    return [(event.kv.mod_revision, event.kv.key, event.kv.value) for event in response.events]


def creation(key: bytes, range_end: bytes = b"", start_revision: int = 0) -> bytes:
    create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start_revision)
    return rpc_pb2.WatchRequest(create_request=create).SerializeToString()
