"""One HTTP/2 connection that many logical clients share, each with one request under way.

There are no tasks or futures: when an answer is complete, the client's next request goes into the
same write as all others that this read made possible.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, cast

import hpack

from etcray_bench.load import frames

CREDIT_RENEWED_BYTES: Final = 2**26
"""The server gets new connection credit each time it has sent so much."""


class LogicalClient:
    """One client of the closed loop. Its keys are its own, so it knows what they must hold."""

    __slots__ = ("answer_bytes", "failures", "number", "sequence", "started")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequence = 0
        """Requests made so far; the number of the one under way is one less."""
        self.started = 0.0
        self.answer_bytes = 0
        self.failures = 0


NextMessage = Callable[[LogicalClient, float, str | None], bytes | None]
"""Told that a client's request is over, when, and its error; returns the next one, None to stop."""


class Connection(asyncio.Protocol):
    """Give it clients with `begin` once `ready` is done."""

    def __init__(self, headers: frames.RequestHeaders, next_message: NextMessage) -> None:
        self._headers = headers
        self._next_message = next_message
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, LogicalClient] = {}
        self._stream = -1
        self._rest = b""
        self._out: list[bytes] = []
        self._parked: deque[tuple[LogicalClient, bytes]] = deque()
        self._credit = frames.WINDOW_DEFAULT
        self._streams_max = frames.STREAM_LAST
        self._received_bytes = 0
        self._decoder = hpack.Decoder()
        self._steady_headers: set[bytes] = set()
        self.stream_credit = frames.WINDOW_DEFAULT
        """What a single message may not exceed."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods, but is no subclass.
        self._transport = cast(asyncio.Transport, transport)
        windows = frames.settings({frames.SETTING_INITIAL_WINDOW: frames.WINDOW_MAX})
        more = frames.window_update(frames.WINDOW_MAX - frames.WINDOW_DEFAULT)
        self._transport.write(frames.PREFACE + windows + more)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        lost = error or ConnectionError("the server closed the connection")
        for future in (self.ready, self.lost):
            if not future.done():
                future.set_exception(lost)

    def begin(self, client: LogicalClient, message: bytes) -> None:
        client.started = perf_counter()
        self._send(client, message)
        self._flush()

    def close(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def _send(self, client: LogicalClient, message: bytes) -> None:
        length = len(message) + 5
        if length > self._credit or len(self._pending) >= self._streams_max:
            self._parked.append((client, message))
            return
        self._credit -= length
        self._stream = stream = self._stream + 2
        self._pending[stream] = client
        client.answer_bytes = 0
        if stream == 1:
            self._out.append(frames.first_request(stream, self._headers, message))
        else:
            self._out.append(frames.request(stream, message))

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, stream = frames.read_header(data, at)
            start = at + frames.HEADER_BYTES
            after = start + (high << 16 | low)
            if after > end:
                break
            at = after
            if kind == frames.DATA:
                self._received_bytes += after - start
                client = self._pending.get(stream)
                if client is not None:
                    client.answer_bytes += after - start
                    if flags & frames.END_STREAM:
                        self._over(stream, now, "the answer has no status")
                else:
                    self._on_other_data(stream, data[start:after], now)
            elif kind == frames.HEADERS:
                self._on_headers(stream, flags, data[start:after], now)
            else:
                self._on_control(kind, flags, stream, data[start:after], now)
        self._rest = data[at:]
        if self._parked:
            self._unpark()
        if self._received_bytes >= CREDIT_RENEWED_BYTES:
            self._out.append(frames.window_update(self._received_bytes))
            self._received_bytes = 0
        self._flush()

    def _on_other_data(self, stream: int, payload: bytes, now: float) -> None:
        """Data of a stream that is not one client's request."""

    def _on_headers(self, stream: int, flags: int, block: bytes, now: float) -> None:
        """Only blocks that could change the table, or end a failed call, are decoded."""
        error = None
        if block not in self._steady_headers:
            assert flags & frames.END_HEADERS, "headers that span several frames are not understood"
            decoded = dict(self._decoder.decode(block, raw=True))
            status = decoded.get(b"grpc-status", b"0")
            if status != b"0":
                error = f"{decoded.get(b'grpc-message', b'').decode()} (status {status.decode()})"
            elif min(block) >= 0x80:
                # Nothing but references: it can never mean anything else, until the table changes,
                # and whatever changes the table is not in the set.
                self._steady_headers.add(block)
            else:
                self._steady_headers.clear()
        if flags & frames.END_STREAM:
            self._over(stream, now, error)

    def _over(self, stream: int, now: float, error: str | None) -> None:
        client = self._pending.pop(stream, None)
        if client is None:
            return
        message = self._next_message(client, now, error)
        if message is not None:
            client.started = perf_counter()
            self._send(client, message)

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == frames.PING and not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE and stream == 0:
            self._credit += int.from_bytes(payload, "big")
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._on_settings(frames.read_settings(payload))
        elif kind == frames.RST_STREAM:
            self._over(stream, now, f"stream reset, code {int.from_bytes(payload, 'big')}")
        elif kind == frames.GOAWAY:
            raise ConnectionError(f"the server says goodbye: {payload[8:]!r}")

    def _on_settings(self, values: dict[int, int]) -> None:
        table = values.get(frames.SETTING_HEADER_TABLE_SIZE, 4096)
        if table < frames.RequestHeaders.TABLE_BYTES_MIN:
            raise ConnectionError(f"the server's header table of {table} bytes is too small for this client")
        self._streams_max = values.get(frames.SETTING_STREAMS_MAX, self._streams_max)
        self.stream_credit = values.get(frames.SETTING_INITIAL_WINDOW, self.stream_credit)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)

    def _unpark(self) -> None:
        """Send what waited for credit or a free stream, in order, as far as there is some."""
        waiting, self._parked = self._parked, deque()
        for client, message in waiting:
            self._send(client, message)
