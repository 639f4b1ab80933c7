"""Just enough HTTP/2 and HPACK to send the same gRPC call many times and see that it is answered.

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
    """The headers of one gRPC method, as HPACK sends them: in full on a connection's first request,
    which puts them into the peer's table, then as six one-byte references to it."""

    REPEATED: Final = bytes((0x83, 0x86, 0xC1, 0xC0, 0xBF, 0xBE))
    """POST, http, then the table's four entries from the oldest to the newest."""

    TABLE_BYTES_MIN: Final = 512

    def __init__(self, path: str, authority: str) -> None:
        self.first = b"".join(
            (
                b"\x83\x86",
                b"\x44" + _literal(path.encode()),
                b"\x41" + _literal(authority.encode()),
                b"\x5f" + _literal(b"application/grpc"),
                b"\x40" + _literal(b"te") + _literal(b"trailers"),
            )
        )


_REPEATED_START: Final = frame(HEADERS, END_HEADERS, 0, RequestHeaders.REPEATED)[:5]


def request(stream: int, message: bytes) -> bytes:
    """A whole request, for every one but a connection's first."""
    number = _stream_bytes(stream)
    return b"".join((_REPEATED_START, number, RequestHeaders.REPEATED, grpc_data(number, message)))


def opening(stream: int, headers: RequestHeaders, *, first: bool) -> bytes:
    """The head of a request whose messages follow at any time."""
    return frame(HEADERS, END_HEADERS, stream, headers.first if first else RequestHeaders.REPEATED)


def message_data(stream: int, message: bytes) -> bytes:
    """One gRPC message on a stream that stays open."""
    assert len(message) + 5 <= FRAME_BYTES_MAX, f"a message of {len(message)} bytes needs several frames"
    return frame(DATA, 0, stream, b"\x00" + len(message).to_bytes(4, "big") + message)


def first_request(stream: int, headers: RequestHeaders, message: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, headers.first) + grpc_data(_stream_bytes(stream), message)


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
