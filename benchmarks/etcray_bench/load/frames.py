"""Just enough HTTP/2 and HPACK to send the same few gRPC calls many times and read their answers.

A load generator shares two cores with what it measures, so every microsecond that it spends counts
against the server. A full HTTP/2 client makes objects for streams, headers and events; here, a
request is a few prepared bytes with a stream number in two places.
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4

SETTING_HEADER_TABLE_SIZE: Final = 1
SETTING_STREAMS_MAX: Final = 3
SETTING_INITIAL_WINDOW: Final = 4

CANCEL: Final = 8

WINDOW_DEFAULT: Final = 65_535
WINDOW_MAX: Final = 2**31 - 1
FRAME_BYTES_MAX: Final = 16_384
"""What every peer accepts without having said so."""
HEADER_BYTES: Final = 9
STREAM_LAST: Final = 2**31 - 1

read_header: Final = struct.Struct(">BHBBI").unpack_from
"""A frame's header: length (high byte, low two), type, flags, stream."""

_stream_bytes: Final = struct.Struct(">I").pack


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _stream_bytes(stream) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    return dict(struct.iter_unpack(">HI", payload))


def window_update(increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, _stream_bytes(increment))


def _literal(text: bytes) -> bytes:
    assert len(text) < 127, f"a header of {len(text)} bytes needs a longer length"
    return bytes((len(text),)) + text


class RequestHeaders:
    """The headers of one connection's requests, as HPACK sends them. What a request does not share with an
    earlier one goes into the peer's table with it; all else is a one-byte reference to that table.

    Blocks must be sent in the order in which they are made, each of them once.
    """

    TABLE_BYTES_MIN: Final = 2048
    PATHS_MAX: Final = 16

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._paths: list[str] = []
        """In the order in which they came into the table."""
        self._known: dict[str, tuple[bytes, bytes]] = {}

    def block(self, path: str) -> tuple[bytes, bytes]:
        """A HEADERS frame up to its stream number, and its payload."""
        found = self._known.get(path)
        return found if found is not None else self._add(path)

    def _add(self, path: str) -> tuple[bytes, bytes]:
        self._paths.append(path)
        assert len(self._paths) <= self.PATHS_MAX, f"the table has no room for {len(self._paths)} paths"
        # The newest entry is number 62. The first request adds its path, then the authority, the content
        # type and `te`; each path that comes later pushes these up by one.
        later = len(self._paths) - 1
        others = bytes((0xC0 + later, 0xBF + later, 0xBE + later))
        self._known = {
            known: _block(bytes((0x83, 0x86, (0xC1 if number == 0 else 0xBE) + later - number)) + others)
            for number, known in enumerate(self._paths)
        }
        start = b"\x83\x86\x44" + _literal(path.encode())
        if later:
            return _block(start + others)
        authority = b"\x41" + _literal(self._authority.encode())
        content_type = b"\x5f" + _literal(b"application/grpc")
        return _block(start + authority + content_type + b"\x40" + _literal(b"te") + _literal(b"trailers"))


def _block(payload: bytes) -> tuple[bytes, bytes]:
    return frame(HEADERS, END_HEADERS, 0, payload)[:5], payload


def request(stream: int, block: tuple[bytes, bytes], message: bytes) -> bytes:
    """A whole request."""
    number = _stream_bytes(stream)
    return b"".join((block[0], number, block[1], grpc_data(number, message)))


def opening(stream: int, block: tuple[bytes, bytes]) -> bytes:
    """The head of a request whose messages follow at any time."""
    return b"".join((block[0], _stream_bytes(stream), block[1]))


def cancellation(stream: int) -> bytes:
    """Says that nobody waits for an answer any more."""
    return frame(RST_STREAM, 0, stream, _stream_bytes(CANCEL))


def message_data(stream: int, message: bytes) -> bytes:
    """One gRPC message on a stream that stays open."""
    assert len(message) + 5 <= FRAME_BYTES_MAX, f"a message of {len(message)} bytes needs several frames"
    return frame(DATA, 0, stream, b"\x00" + len(message).to_bytes(4, "big") + message)


def grpc_data(stream: bytes, message: bytes) -> bytes:
    """The DATA frames of one gRPC message that ends its stream."""
    length = len(message) + 5
    if length <= FRAME_BYTES_MAX:
        start = length.to_bytes(3, "big") + b"\x00\x01"
        return b"".join((start, stream, b"\x00", (length - 5).to_bytes(4, "big"), message))
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    pieces = [body[at : at + FRAME_BYTES_MAX] for at in range(0, length, FRAME_BYTES_MAX)]
    last = len(pieces) - 1
    return b"".join(
        len(piece).to_bytes(3, "big") + bytes((DATA, END_STREAM if at == last else 0)) + stream + piece
        for at, piece in enumerate(pieces)
    )
