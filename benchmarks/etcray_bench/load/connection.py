"""One HTTP/2 connection that many logical clients share, each with one call under way.

There are no tasks or futures: when an answer is complete, the client's next request goes into the
same write as all others that this read made possible.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Final, cast

import hpack

from etcray_bench.load import frames

CREDIT_RENEWED_BYTES: Final = 2**26
"""The server gets new connection credit each time it has sent so much."""
GRPC_PREFIX_BYTES: Final = 5
"""Before each message: whether it is compressed, and its length."""


class Call:
    """What waits for one answer; may be used again for the next request when it was told the end."""

    __slots__ = ("parts", "started")

    def __init__(self) -> None:
        self.started = 0.0
        """When its request was handed over, by perf_counter."""
        self.parts: list[bytes] = []
        """Of the answer, as they come."""

    def answered(self, message: bytes, now: float) -> None:
        """The answer was read at that moment. May begin the next call."""
        raise NotImplementedError

    def failed(self, error: str, now: float) -> None:
        """There is no answer: what the server said, `(status N)` at the end, or what happened to the
        connection. May begin another call, unless the connection is lost."""
        raise NotImplementedError


class Connection(asyncio.Protocol):
    """Begin calls once `ready` is done. When it is lost, all calls fail and `lost` says why."""

    def __init__(self, endpoint: str) -> None:
        self._headers = frames.RequestHeaders(endpoint)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, Call] = {}
        """By stream, so in the order in which they were begun."""
        self._stream = -1
        self._rest = b""
        self._out: list[bytes] = []
        self._flush_comes = False
        self._parked: deque[tuple[Call, str, bytes]] = deque()
        """They wait for the server's credit or for a free stream."""
        self._credit = frames.WINDOW_DEFAULT
        self._streams_max = frames.STREAM_LAST
        self._received_bytes = 0
        self._decoder = hpack.Decoder()
        self._steady_headers: set[bytes] = set()
        self._fault: Exception | None = None
        self.stream_credit = frames.WINDOW_DEFAULT
        """What a single message may not exceed."""
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        for future in (self.ready, self.lost):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # Looked at.

    # --- the calls --------------------------------------------------------------------------------

    def begin(self, call: Call, path: str, message: bytes) -> None:
        """Send it, with what else is sent in this turn of the loop."""
        call.started = perf_counter()
        self._send(call, path, message)
        if not self._flush_comes:
            self._flush_soon()

    def expire(self, started_before: float, error: str) -> None:
        """Cancel and fail the calls that were begun before then."""
        late: list[tuple[int, Call]] = []
        for stream, call in self._pending.items():
            if call.started >= started_before:
                break
            late.append((stream, call))
        for stream, _ in late:
            del self._pending[stream]
            self._out.append(frames.cancellation(stream))
        parked = [call for call, _, _ in self._parked if call.started < started_before]
        if parked:
            self._parked = deque(item for item in self._parked if item[0].started >= started_before)
        if late:
            self._flush_soon()
        now = perf_counter()
        for call in (*(call for _, call in late), *parked):
            call.parts.clear()
            call.failed(error, now)

    def close(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def _send(self, call: Call, path: str, message: bytes) -> None:
        length = len(message) + GRPC_PREFIX_BYTES
        if length > self._credit or len(self._pending) >= self._streams_max:
            self._parked.append((call, path, message))
            return
        self._credit -= length
        self._stream = stream = self._stream + 2
        self._pending[stream] = call
        self._out.append(frames.request(stream, self._headers.block(path), message))

    def _flush_soon(self) -> None:
        self._flush_comes = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_comes = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _unpark(self) -> None:
        """Send what waited for credit or a free stream, in order, as far as there is some."""
        waiting, self._parked = self._parked, deque()
        for call, path, message in waiting:
            self._send(call, path, message)

    # --- what comes -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods, but is no subclass.
        self._transport = cast(asyncio.Transport, transport)
        windows = frames.settings({frames.SETTING_INITIAL_WINDOW: frames.WINDOW_MAX})
        more = frames.window_update(frames.WINDOW_MAX - frames.WINDOW_DEFAULT)
        self._transport.write(frames.PREFACE + windows + more)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        lost = self._fault or error or ConnectionError("the server closed the connection")
        for future in (self.ready, self.lost):
            if not future.done():
                future.set_exception(lost)
        calls = [*self._pending.values(), *(call for call, _, _ in self._parked)]
        self._pending.clear()
        self._parked.clear()
        now = perf_counter()
        for call in calls:
            call.parts.clear()
            call.failed(f"connection lost: {lost}", now)

    def _lose(self, fault: Exception) -> None:
        """End a connection that is of no more use."""
        self._fault = self._fault or fault
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self._flush_comes = True
        if self._rest:
            data = self._rest + data
        at, end, pending = 0, len(data), self._pending
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, stream = frames.read_header(data, at)
            start = at + frames.HEADER_BYTES
            after = start + (high << 16 | low)
            if after > end:
                break
            at = after
            if kind == frames.DATA:
                self._received_bytes += after - start
                call = pending.get(stream)
                if call is not None:
                    call.parts.append(data[start:after])
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
        """Data of a stream that is no call's, or of a call that was given up."""

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
        call = self._pending.pop(stream, None)
        if call is None:
            return
        parts = call.parts
        message = (parts[0] if len(parts) == 1 else b"".join(parts))[GRPC_PREFIX_BYTES:]
        parts.clear()
        if error is None:
            call.answered(message, now)
        else:
            call.failed(error, now)

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
            self._lose(ConnectionError(f"the server says goodbye: {payload[8:]!r}"))

    def _on_settings(self, values: dict[int, int]) -> None:
        table = values.get(frames.SETTING_HEADER_TABLE_SIZE, 4096)
        if table < frames.RequestHeaders.TABLE_BYTES_MIN:
            self._lose(ConnectionError(f"the server's header table of {table} bytes is too small"))
            return
        self._streams_max = values.get(frames.SETTING_STREAMS_MAX, self._streams_max)
        self.stream_credit = values.get(frames.SETTING_INITIAL_WINDOW, self.stream_credit)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)
