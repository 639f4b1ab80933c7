"""A client that writes HTTP/2 frames byte by byte, to send what no library would."""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from httpunk._httpunk import H2Codec, H2FrameData, H2FrameGoAway, H2FrameHeaders, H2FrameRstStream

if TYPE_CHECKING:
    from httpunk._httpunk import H2Frame

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class RawHttp2:
    """One connection. Use as a context manager."""

    def __init__(self, port: int, *, initial_window: int = 1 << 20) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._codec = H2Codec("client")
        self._frames: deque[H2Frame] = deque()
        self._next_stream = 1
        settings = struct.pack(">HI", 4, initial_window)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(SETTINGS, 0, 0, settings)

    def __enter__(self) -> RawHttp2:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset_connection(self) -> None:
        """Close with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        length = struct.pack(">I", len(payload))[1:]
        self._socket.sendall(length + bytes([kind, flags]) + struct.pack(">I", stream) + payload)

    def open(self, path: str, *, end: bool = False, **headers: str) -> int:
        """Send the head of a gRPC request; returns the stream's number."""
        stream = self._next_stream
        self._next_stream += 2
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        block = b"".join(_literal(name) + _literal(value, prefix=b"") for name, value in fields.items())
        self.send(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)
        return stream

    def send_data(self, stream: int, data: bytes, *, end: bool = True) -> None:
        pieces = [data[start : start + 16_000] for start in range(0, len(data), 16_000)] or [b""]
        for piece in pieces[:-1]:
            self.send(DATA, 0, stream, piece)
        self.send(DATA, END_STREAM if end else 0, stream, pieces[-1])

    def receive(self) -> H2Frame:
        """The next frame. Raises EOFError at the end of the connection."""
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                raise EOFError
            self._frames.extend(self._codec.receive(data))
        return self._frames.popleft()

    def receive_body(self, stream: int) -> bytes:
        """The whole body with which this stream ends."""
        body = b""
        while True:
            frame = self.receive()
            if isinstance(frame, H2FrameData) and frame.stream_id == stream:
                body += frame.data
            if (
                isinstance(frame, H2FrameData | H2FrameHeaders)
                and frame.stream_id == stream
                and frame.end_stream
            ):
                return body

    def receive_status(self, stream: int) -> int:
        """The gRPC status with which this stream ends. Raises EOFError if the connection ends first."""
        while True:
            frame = self.receive()
            if isinstance(frame, H2FrameGoAway):
                raise EOFError
            if isinstance(frame, H2FrameRstStream):
                assert frame.stream_id != stream, f"stream {stream} was reset: {frame.error_code}"
            if isinstance(frame, H2FrameHeaders) and frame.stream_id == stream and frame.end_stream:
                return int(frame.headers["grpc-status"])


def _literal(text: str, prefix: bytes = b"\0") -> bytes:
    """A string of a header field: without indexing, without Huffman."""
    data = text.encode()
    assert len(data) < 127, "longer strings need a longer length"
    return prefix + bytes([len(data)]) + data
