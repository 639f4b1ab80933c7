"""HTTP/2 over given bytes: with `http1_engine`, the only module that knows the HTTP library.

Rules for this file: nothing here knows gRPC, etcd or sockets; everything above sees `RequestHead`,
`Stream` and `http_messages`, and never the library. The library is used at
its sans-I/O level (frames in, bytes out, no tasks, no events); why, and what it costs, is in the
package's essay.

Bounds. What a peer may send is bounded by HTTP/2's windows: `Stream.consume` opens them again. What we
may have to send is bounded per stream by the caller, who waits for `Stream.drained`. What we already
framed is bounded because nothing is read from a peer that does not read: pings and resets of such a
peer cannot pile up answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from httpunk._httpunk import (
    H2_FLAG_CAPACITY,
    H2_FLAG_CONN_DONE,
    H2_FLAG_STOP_ACCEPTING,
    H2_HEADERS_OPENED,
    H2_HEADERS_TRAILERS,
    H2Codec,
    H2Error,
    H2FrameData,
    H2FrameGoAway,
    H2FrameHeaders,
    H2FramePing,
    H2FrameRstStream,
    H2FrameSettings,
    H2FrameStreamError,
    H2FrameWindowUpdate,
    H2StreamError,
    H2Streams,
)
from httpunk._httpunk import (
    HeaderMap as HeaderMap,
)

from etcray.gateway.http_messages import Exchange, HttpRequest, HttpResponse, Receiver, Socket
from etcray_storage import limits

PROTOCOL_ERROR: Final = 1
"""HTTP/2 error codes that we send by ourselves (RFC 9113, section 7)."""
CANCEL: Final = 8

STREAM_WINDOW_BYTES: Final = 1 * limits.MIB
CONNECTION_WINDOW_BYTES: Final = 8 * limits.MIB
SEND_BUFFER_BYTES_MAX: Final = 400 * limits.KIB
"""Framed bytes of one stream that wait for the socket."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The beginning of an HTTP/2 request."""

    method: str
    path: str
    headers: HeaderMap


class Application(Protocol):
    def stream_opened(self, head: RequestHead, stream: Stream) -> Receiver: ...

    async def plain_request(self, request: HttpRequest) -> HttpResponse: ...

    def exchange(self, request: HttpRequest) -> Exchange | HttpResponse:
        """What a WebSocket of this path leads to, or the refusal."""

    def hold(self, count: int) -> bool:
        """Account for so many bytes of a plain request whose rest has not arrived yet, or of one that is
        being answered. False, and nothing is counted, if that is too much for the gateway."""

    def let_go(self, count: int) -> None:
        """Those bytes are not held any more."""


class Stream:
    """The answering half of one HTTP/2 stream. Every method but `drained` returns at once; after the
    client left they do nothing."""

    __slots__ = ("_connection", "_drained", "closed", "number", "offset", "queue", "receiver", "trailers")

    def __init__(self, connection: Http2) -> None:
        self._connection = connection
        self._drained: asyncio.Future[None] | None = None
        self.number = 0
        self.receiver: Receiver | None = None
        self.queue: deque[bytes] = deque()
        self.offset = 0
        """Bytes of `queue[0]` that are framed already."""
        self.trailers: HeaderMap | None = None
        self.closed = False
        """Both halves are done, or the client left."""

    def respond(self, headers: HeaderMap, body: bytes, trailers: HeaderMap) -> None:
        """The whole answer: head, one body, trailers."""
        if self.closed:
            return
        self._connection.send_head(self, 200, headers, False)
        if not self.closed:
            self.queue.append(body)
            self.trailers = trailers
            self._connection.push(self)

    def send_head(self, headers: HeaderMap, *, status: int = 200, end: bool = False) -> None:
        if not self.closed:
            self._connection.send_head(self, status, headers, end)

    def send_data(self, data: bytes) -> None:
        assert self.trailers is None, f"stream {self.number}: data after trailers"
        if not self.closed and data:
            self.queue.append(data)
            self._connection.push(self)

    def send_trailers(self, trailers: HeaderMap) -> None:
        if not self.closed:
            self.trailers = trailers
            self._connection.push(self)

    def reset(self, code: int = CANCEL) -> None:
        if not self.closed:
            self._connection.reset(self, code)

    def consume(self, count: int) -> None:
        """The receiver is done with this many bytes: the client may send as many more."""
        if not self.closed:
            self._connection.release(self, count)

    async def drained(self) -> None:
        """Return once everything sent so far fits the client's windows, or the client left."""
        if self.queue and not self.closed:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def settle(self) -> None:
        """For the connection: the queue is empty, or nobody wants it any more."""
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None


class Http2:
    """One HTTP/2 connection: the library's frames on one side, streams on the other."""

    def __init__(self, owner: Socket, application: Application) -> None:
        self._owner = owner
        self._application = application
        self._live: set[Stream] = set()
        self._closing = False
        self._flush_scheduled = False
        self._state = H2Streams(
            "server",
            initial_window_size=STREAM_WINDOW_BYTES,
            connection_window=CONNECTION_WINDOW_BYTES,
            max_frame_size=16 * limits.KIB,
            max_header_list_size=16 * limits.KIB,
            max_send_buf_size=SEND_BUFFER_BYTES_MAX,
            max_concurrent_streams=limits.STREAMS_PER_CONNECTION_MAX,
            max_local_error_reset_streams=1024,
            auto_date_header=False,
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            H2FrameHeaders: self._headers,
            H2FrameData: self._data,
            H2FrameWindowUpdate: self._window_update,
            H2FrameSettings: self._settings,
            H2FramePing: self._ping,
            H2FrameGoAway: self._go_away,
            H2FrameRstStream: self._reset_received,
            H2FrameStreamError: self._frame_error,
        }
        self._state.begin()

    # --- bytes in ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        handlers = self._handlers
        try:
            for frame in self._state.receive(data):
                handler = handlers.get(type(frame))
                if handler is None:
                    continue  # PRIORITY says nothing that we use
                try:
                    handler(frame)
                except H2StreamError as error:
                    if error.args[2] != "remote":
                        self._reset_after_violation(error.args[0], error.args[1])
            self._after(self._state.maybe_goaway_reply())
        except H2Error as error:
            reason = error.args[0] if error.args and isinstance(error.args[0], int) else PROTOCOL_ERROR
            self._after(self._state.send_goaway(reason))
            self._closing = True
            self.connection_lost()
        if self._state.has_pending() or self._closing:
            self.schedule_flush()

    def connection_lost(self) -> None:
        self._state.fail(None)
        for stream in list(self._live):
            self._close(stream, abandoned=True)

    def _headers(self, frame: H2FrameHeaders) -> None:
        stream = Stream(self)
        verdict = self._state.recv_headers(frame, stream)
        if verdict.kind == H2_HEADERS_OPENED:
            stream.number = verdict.stream_id
            self._state.accepted(verdict.stream_id)
            self._live.add(stream)
            head = RequestHead(frame.method or "", frame.path or "", frame.headers)
            stream.receiver = self._application.stream_opened(head, stream)
            if verdict.eof:
                stream.receiver.end_received()
        elif verdict.kind == H2_HEADERS_TRAILERS and isinstance(verdict.handle, Stream):
            self._end_received(verdict.handle)
        if verdict.flags:
            self._after(verdict.flags)

    def _data(self, frame: H2FrameData) -> None:
        verdict = self._state.recv_data(frame)
        stream = verdict.handle
        if isinstance(stream, Stream):
            payload = verdict.payload
            if payload is not None:
                if verdict.budgeted:
                    self._state.release_data_frame(stream.number, len(payload))
                if stream.receiver is not None and not stream.closed:
                    stream.receiver.data_received(payload)
            if verdict.eof:
                self._end_received(stream)
        if verdict.flags:
            self._after(verdict.flags)

    @staticmethod
    def _end_received(stream: Stream) -> None:
        if stream.receiver is not None and not stream.closed:
            stream.receiver.end_received()

    def _window_update(self, frame: H2FrameWindowUpdate) -> None:
        self._wake(self._state.recv_window_update(frame))

    def _settings(self, frame: H2FrameSettings) -> None:
        _initial, wake, flags = self._state.recv_settings(frame)
        self._wake(wake)
        self._after(flags)

    def _ping(self, frame: H2FramePing) -> None:
        self._after(self._state.recv_ping(frame))

    def _go_away(self, frame: H2FrameGoAway) -> None:
        aborted, flags = self._state.recv_go_away(frame)
        for handle, _stop in aborted:
            if isinstance(handle, Stream):
                self._close(handle, abandoned=True)
        self._after(flags)

    def _reset_received(self, frame: H2FrameRstStream) -> None:
        reset = self._state.recv_reset(frame)
        if reset is not None:
            handle, _stop, _notify_body, flags = reset
            if isinstance(handle, Stream):
                self._close(handle, abandoned=True)
            self._after(flags)

    def _frame_error(self, frame: H2FrameStreamError) -> None:
        self._reset_after_violation(frame.stream_id, frame.error_code)

    def _reset_after_violation(self, number: int, reason: int) -> None:
        verdict = self._state.reset_on_error(number, reason)
        if isinstance(verdict.handle, Stream):
            self._close(verdict.handle, abandoned=True)
        self._after(verdict.flags)

    # --- answers out ------------------------------------------------------------------------------

    def send_head(self, stream: Stream, status: int, headers: HeaderMap, end: bool) -> None:
        verdict = self._state.send_response_head(stream.number, status, headers, end)
        if verdict.stopped is not None:
            self._close(stream, abandoned=True)
            return
        if verdict.flags:
            self._after(verdict.flags)
        if end:
            self._close(stream, abandoned=False)
        self.schedule_flush()

    def push(self, stream: Stream) -> None:
        """Frame as much of the stream's queue as its windows take."""
        queue = stream.queue
        state = self._state
        number = stream.number
        while queue and not stream.closed:
            verdict = state.send_data(number, queue[0], stream.offset, False)
            if verdict.stopped is not None:
                self._close(stream, abandoned=True)
                return
            if verdict.flags:
                self._after(verdict.flags)
            if verdict.done:
                queue.popleft()
                stream.offset = 0
            elif verdict.sent:
                stream.offset += verdict.sent
            else:
                break  # until the client's WINDOW_UPDATE, or until the socket took more
        if not queue and not stream.closed:
            if stream.trailers is not None:
                flags = state.send_trailers(number, stream.trailers).flags
                if flags:
                    self._after(flags)
                self._close(stream, abandoned=False)
            stream.settle()
        self.schedule_flush()

    def reset(self, stream: Stream, code: int) -> None:
        self._after(self._state.reset_stream(stream.number, code).flags)
        self._close(stream, abandoned=False)
        self.schedule_flush()

    def release(self, stream: Stream, count: int) -> None:
        flags = self._state.release_capacity(stream.number, count)
        if flags:
            self._after(flags)
            self.schedule_flush()

    def _close(self, stream: Stream, *, abandoned: bool) -> None:
        if stream.closed:
            return
        stream.closed = True
        self._live.discard(stream)
        stream.queue.clear()
        stream.settle()
        receiver, stream.receiver = stream.receiver, None
        if abandoned and receiver is not None:
            receiver.abandoned()

    def _wake(self, handles: list[Any]) -> None:
        for handle in handles:
            if not handle.closed:
                self.push(handle)

    def _after(self, flags: int) -> None:
        if flags & H2_FLAG_CAPACITY:
            handle = self._state.next_capacity_wake()
            if isinstance(handle, Stream) and not handle.closed:
                # Not pushed at once: this may be inside another stream's push.
                asyncio.get_running_loop().call_soon(self.push, handle)
        if flags & (H2_FLAG_CONN_DONE | H2_FLAG_STOP_ACCEPTING):
            self._closing = True
            self.schedule_flush()

    def schedule_flush(self) -> None:
        """All answers of one turn of the event loop leave in one write."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self._flush_scheduled = False
        state = self._state
        while not self._owner.write_paused and state.has_pending():
            view, _stopping = state.take_pending()
            data = bytes(view)  # the library reuses the buffer; the transport may keep it
            view.release()
            self._owner.write(data)
            self._wake(state.credit_written())
        if self._closing and not self._live and not state.has_pending():
            self._owner.close()

    def shut_down(self) -> None:
        """Two-phase GOAWAY: requests that are on their way are still served."""
        self._after(self._state.begin_graceful_shutdown())
        self.schedule_flush()


_CORS: Final = (
    ("access-control-allow-headers", "accept, content-type, authorization"),
    ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
    ("access-control-allow-origin", "*"),
)
"""Pages of any origin may ask, as with etcd's default settings."""


def plain_headers(response: HttpResponse) -> HeaderMap:
    fields = list(_CORS)
    if response.content_type:
        fields.append(("content-type", response.content_type))
    if response.chunks is None:
        fields.append(("content-length", str(len(response.body))))
    if response.allow:
        fields.append(("allow", response.allow))
    fields += response.headers
    return HeaderMap(fields)


def speaks_http2(opening: bytes) -> bool | None:
    """Which protocol a client's first bytes begin; None while they could begin either."""
    return H2Codec.match_preface(opening)
