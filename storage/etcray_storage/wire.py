"""Protobuf by hand, for the few messages that are assembled from parts that are bytes already.

A stored pair is kept as the serialized `mvccpb.KeyValue`, so an answer is a concatenation: no message
objects, no second copy of a value. What makes it work is a rule of protobuf's encoding: serialized
fields, and so serialized messages, may be concatenated in any order. That is also why an answer's
body travels without its header: whoever answers puts `response_header` in front.

As in proto3, a field with its default value is not written.

One request is read by hand, too: `plain_put`, of which there are more than of all others.
"""

from __future__ import annotations

from typing import Final

_UINT64_MASK: Final = (1 << 64) - 1
_SHORT_END: Final = 1 << 14
_LONG_END: Final = 1 << 28
_SHORT: Final = tuple(bytes((n,)) if n < 128 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(_SHORT_END))
_MORE: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(_SHORT_END))
"""Whole numbers of up to 14 bits, and the first 14 bits of longer ones. Looked up, because computing them
byte by byte costs three times as much."""
_MORE_FOLLOW: Final = 128
"""A byte of a number from here on is not its last."""

EMPTY_HEADER: Final = b"\x0a\x00"
"""Field 1 of a response: a header that is present and says nothing (an inner transaction's)."""


def varint(n: int) -> bytes:
    """A number as protobuf writes it. Negative ones become 64-bit two's complement: ten bytes."""
    if n < 0:
        n &= _UINT64_MASK
    if n < _SHORT_END:
        return _SHORT[n]
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
    """A serialized `mvccpb.KeyValue` with its fields in canonical order.

    Every member makes one for every put: 1.2 us with a call of `varint` for each number, 0.45 without."""
    key_size, value_size, create = len(key), len(value), create_revision
    if (
        lease
        or not value
        or key_size >= _SHORT_END
        or value_size >= _SHORT_END
        or not 0 <= version < _SHORT_END
        or not 0 <= create <= mod_revision < _LONG_END
    ):
        return _rare_key_value(key, create_revision, mod_revision, version, value, lease)
    return b"".join(
        (
            b"\x0a",
            _SHORT[key_size],
            key,
            b"\x10",
            _SHORT[create] if create < _SHORT_END else _MORE[create & 0x3FFF] + _SHORT[create >> 14],
            b"\x18",
            _SHORT[mod_revision]
            if mod_revision < _SHORT_END
            else _MORE[mod_revision & 0x3FFF] + _SHORT[mod_revision >> 14],
            b"\x20",
            _SHORT[version],
            b"\x2a",
            _SHORT[value_size],
            value,
        )
    )


def _rare_key_value(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """The same for every pair that there can be."""
    parts = [b"\x0a", varint(len(key)), key]
    parts += [b"\x10", varint(create_revision), b"\x18", varint(mod_revision), b"\x20", varint(version)]
    if value:
        parts += [b"\x2a", varint(len(value)), value]
    if lease:
        parts += [b"\x30", varint(lease)]
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


def plain_put(data: bytes) -> tuple[bytes, bytes] | None:
    """Key and value of a serialized PutRequest with these two and nothing else, as nearly all are; None for
    any other, and for what is longer than two bytes can say."""
    try:
        key_end, value_size = data[1] + 2, data[data[1] + 3]
        start = key_end + 2
        if value_size >= _MORE_FOLLOW:
            upper = data[start]
            if upper >= _MORE_FOLLOW:
                return None
            value_size += (upper - 1) << 7
            start += 1
        if data[0] != 0x0A or data[key_end] != 0x12 or not 2 < key_end < 2 + _MORE_FOLLOW or not value_size:
            return None
    except IndexError:
        return None
    return (data[2:key_end], data[start:]) if start + value_size == len(data) else None
