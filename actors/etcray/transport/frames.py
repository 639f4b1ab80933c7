"""Frames: how a stream of bytes is cut into messages. Pure.

A frame is a header of nine bytes (little-endian: length of the payload, kind, number) and the payload. The
number ties an answer to its call; it is 0 where there is nothing to tie.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<IBI")
HEADER_BYTES: Final = _HEADER.size
NUMBER_MAX: Final = 2**32 - 1


class Kind(IntEnum):
    """What a frame is. Numbers are never reused."""

    CHALLENGE = 1
    PROOF = 2
    WELCOME = 3
    """The three of the handshake, in this order; see `handshake`."""
    ANSWER = 8
    """What a call returned."""
    FAILED = 9
    """A call raised; the payload says what, for people."""
    MESSAGES = 16
    """An Envelope of a peer. Not a call: nothing comes back, unless its sender was removed."""
    SNAPSHOT_CHUNK = 17
    PROPOSE = 18
    READ = 19
    KEEP_ALIVE = 20
    WATCH = 21
    HISTORY = 22
    STATUS = 23
    TRANSFER_LEADERSHIP = 24
    HASH_KV = 25
    DEFRAGMENT = 26
    HISTORY_ROWS = 27
    """The calls of a member, as `node.api` has them."""


class Frame(NamedTuple):
    """One message."""

    kind: int
    """A `Kind`, if the other end is of this version."""
    number: int
    payload: bytes


class FrameError(Exception):
    """What came is no frame, or one above the limit: the connection is of no further use."""


def header(kind: Kind, number: int, payload_bytes: int) -> bytes:
    """What precedes the payload."""
    return _HEADER.pack(payload_bytes, kind, number)


class FrameDecoder:
    """Takes bytes as they come, in any pieces, and gives whole frames."""

    def __init__(self, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max
        """May be raised between two frames."""
        self._parts: list[bytes] = []
        """Of the frame that is not complete."""
        self._size = 0
        """Bytes in these."""
        self._needed = 0
        """Bytes with which it is complete, or its header is."""

    @property
    def is_empty(self) -> bool:
        """No part of a frame is left."""
        return not self._parts

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete. Raises FrameError; the decoder is of no use then."""
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._parts)
            self._parts = []
        frames: list[Frame] = []
        position, end = 0, len(data)
        needed = HEADER_BYTES
        while end - position >= HEADER_BYTES:
            length, kind, number = _HEADER.unpack_from(data, position)
            if length > self.payload_bytes_max:
                raise FrameError(f"a frame of {length} bytes, the limit is {self.payload_bytes_max}")
            needed = HEADER_BYTES + length
            if end - position < needed:
                break
            begin = position + HEADER_BYTES
            position += needed
            frames.append(Frame(kind, number, data[begin:position]))
            needed = HEADER_BYTES
        if position < end:
            self._parts = [data[position:]]
            self._size = end - position
            self._needed = needed
        return frames
