"""Protobuf by hand, for the few messages that are assembled from parts that are bytes already.

A stored pair is kept as the serialized `mvccpb.KeyValue`, so an answer is a concatenation: no message
objects, no second copy of a value. What makes it work is a rule of protobuf's encoding: serialized
fields, and so serialized messages, may be concatenated in any order. That is also why an answer's
body travels without its header: whoever answers puts `response_header` in front.

As in proto3, a field with its default value is not written.
"""

from __future__ import annotations

from typing import Final

_UINT64_MASK: Final = (1 << 64) - 1
_ONE_BYTE: Final = tuple(bytes((n,)) for n in range(128))
_TWO_BYTES: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14))
_MORE: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))
"""Looked up, because computing them byte by byte costs three times as much."""

EMPTY_HEADER: Final = b"\x0a\x00"
"""Field 1 of a response: a header that is present and says nothing (an inner transaction's)."""


def varint(n: int) -> bytes:
    """A number as protobuf writes it. Negative ones become 64-bit two's complement: ten bytes."""
    if n < 0:
        n &= _UINT64_MASK
    if n < 128:
        return _ONE_BYTE[n]
    if n < 16384:
        return _TWO_BYTES[n]
    return _MORE[n & 0x3FFF] + varint(n >> 14)


def varint_field(number: int, n: int) -> bytes:
    """A field of an integer, bool or enum type; nothing for 0."""
    if n == 0:
        return b""
    return varint(number << 3) + varint(n)


def bytes_field(number: int, content: bytes) -> bytes:
    """A field that holds bytes, a string or a serialized message. Written even when empty: the
    caller decides whether an empty one is there."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def repeated_bytes_field(number: int, contents: list[bytes]) -> bytes:
    """One field for each of `contents`, in order."""
    tag = varint(number << 3 | 2)
    parts = []
    for content in contents:
        parts.append(tag)
        parts.append(varint(len(content)))
        parts.append(content)
    return b"".join(parts)


def response_header(cluster_id: int, member_id: int, revision: int, term: int) -> bytes:
    """Field 1 of every response, to be put in front of an answer's body."""
    return bytes_field(
        1,
        varint_field(1, cluster_id)
        + varint_field(2, member_id)
        + varint_field(3, revision)
        + varint_field(4, term),
    )


def revision_header(revision: int) -> bytes:
    """Field 1 of the response to an operation inside a transaction: only a revision."""
    return bytes_field(1, varint_field(3, revision))


def key_value(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """A serialized `mvccpb.KeyValue` with its fields in canonical order."""
    parts = [
        b"\x0a",
        varint(len(key)),
        key,
        b"\x10",
        varint(create_revision),
        b"\x18",
        varint(mod_revision),
        b"\x20",
        varint(version),
    ]
    if value:
        parts += (b"\x2a", varint(len(value)), value)
    if lease:
        parts += (b"\x30", varint(lease))
    return b"".join(parts)


def put_event(pair: bytes) -> bytes:
    """A serialized `mvccpb.Event` of a put, without the previous pair."""
    return bytes_field(2, pair)


def delete_event(key: bytes, main: int) -> bytes:
    """A serialized `mvccpb.Event` of a deletion, which knows only the key and when it was."""
    return b"\x08\x01" + bytes_field(2, bytes_field(1, key) + varint_field(3, main))


def range_response(key_values: list[bytes], more: bool, count: int) -> bytes:
    """The body of a RangeResponse, from serialized pairs."""
    return repeated_bytes_field(2, key_values) + (b"\x18\x01" if more else b"") + varint_field(4, count)


def put_response(previous: bytes | None) -> bytes:
    """The body of a PutResponse; `previous` is the serialized pair that was asked for and existed."""
    return b"" if previous is None else bytes_field(2, previous)


def delete_range_response(deleted: int, previous: list[bytes]) -> bytes:
    """The body of a DeleteRangeResponse."""
    return varint_field(2, deleted) + repeated_bytes_field(3, previous)


def txn_response(succeeded: bool, responses: list[bytes]) -> bytes:
    """The body of a TxnResponse; each response is a serialized ResponseOp."""
    return (b"\x10\x01" if succeeded else b"") + repeated_bytes_field(3, responses)
