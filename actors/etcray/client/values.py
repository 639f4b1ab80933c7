"""Keys and values as users write them, to bytes; and the end of a prefix."""

from __future__ import annotations

from typing import Final

Data = str | bytes
"""A key or a value: text is stored as UTF-8."""

FROM_KEY_END: Final = b"\x00"
"""As a range end: every key that is not smaller than the key."""


def to_bytes(data: Data) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    raise TypeError(f"a key or a value is str or bytes, not {type(data).__name__}")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys with this prefix: the last byte that is not 0xff, plus one."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return FROM_KEY_END
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def key_interval(key: Data, range_end: Data | None, *, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """A request's (key, range_end). At most one of the three ways to give an end may be used.

    An empty key with `prefix` or `from_key` means every key; the API spells that as a zero byte.
    """
    if (range_end is not None) + prefix + from_key > 1:
        raise ValueError("give only one of range_end, prefix and from_key")
    start = to_bytes(key)
    if range_end is not None:
        return start, to_bytes(range_end)
    if prefix:
        return start or b"\x00", prefix_end(start)
    if from_key:
        return start or b"\x00", FROM_KEY_END
    return start, b""
