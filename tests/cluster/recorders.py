"""Watchers that write down every response, and go on where they were when their stream breaks.

They speak to the gateway without any client library, so what they record is what the server does. The
recording of a watcher that had to be created again reads as if its stream had never broken: answers to
later creations are left out, and so are the fragments of a revision whose rest never came. That is legal
because a watch can be resumed; the validators then show that it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import grpc
import grpc.aio

from etcray_storage.proto.rpc_pb2 import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from tests.watch.validators import Recording

WHOLE_STREAM: Final = -1
RECONNECT_SECONDS: Final = 0.05
OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A reader that stops is noticed by the server as soon as a fixed window is full.
    ("grpc.http2.bdp_probe", 0),
]

Call = grpc.aio.StreamStreamCall[WatchRequest, WatchResponse]


class Watcher:
    """One watch over all its incarnations."""

    def __init__(self, request: WatchCreateRequest) -> None:
        self.recording = Recording(request)
        self.position = request.start_revision
        """Where to start next time; 0 until the server said what "now" is."""
        self.delivered = 0
        self.ended = False
        """Cancelled, for whatever reason."""

    def create_request(self) -> WatchRequest:
        request = WatchCreateRequest()
        request.CopyFrom(self.recording.request)
        request.start_revision = self.position
        return WatchRequest(create_request=request)

    def take(self, response: WatchResponse) -> None:
        assert not self.ended, f"a response after the cancellation: {response}"
        if response.created:
            if not self.recording.responses:
                self.recording.responses.append(response)
            self.position = self.position or response.header.revision + 1
            return
        assert self.recording.responses, "a response before the answer to the creation"
        self.recording.responses.append(response)
        self.delivered += len(response.events)
        if response.canceled:
            self.ended = True
            if response.compact_revision:
                assert self.position < response.compact_revision, f"at {self.position}, refused: {response}"
        elif response.events:
            last = response.events[-1].kv.mod_revision
            self.position = last if response.fragment else last + 1
        else:
            self.position = max(self.position, response.header.revision + 1)

    def cut(self) -> None:
        """The stream broke; a revision that came in part comes again as a whole."""
        responses = self.recording.responses
        while responses and responses[-1].fragment:
            self.delivered -= len(responses.pop().events)

    @property
    def compact_revision(self) -> int:
        """0 unless it was cancelled by a compaction."""
        return self.recording.responses[-1].compact_revision if self.recording.responses else 0


class RecordedStream:
    """One stream and its watchers, in a task of its own until `close`."""

    def __init__(
        self,
        endpoint: str,
        *watchers: Watcher,
        pause_seconds: float = 0.0,
        pause_after: int = 0,
        drop_after: int = 0,
        needs_leader: bool = False,
    ) -> None:
        """It stops to read for a while after every `pause_after` responses, and leaves its stream for
        a new one after every `drop_after`."""
        self.watchers = watchers
        self.broken: list[str] = []
        """Why each of its streams ended, if the server or the network did it."""
        self.reading = asyncio.Event()
        """While it is not set, nothing is read."""
        self.reading.set()
        self._pause_seconds = pause_seconds
        self._pause_after = pause_after
        self._drop_after = drop_after
        self._metadata = (("hasleader", "true"),) if needs_leader else ()
        self._channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        self._method = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )
        self._outbox: asyncio.Queue[WatchRequest | None] = asyncio.Queue()
        self._by_id: dict[int, Watcher] = {}
        self._unanswered: deque[Watcher] = deque()
        self._task = asyncio.create_task(self._run())

    def request_progress(self) -> None:
        self._outbox.put_nowait(WatchRequest(progress_request=WatchProgressRequest()))

    def cancel(self, watcher: Watcher) -> None:
        """Cancel a watcher that exists at the server."""
        watch_id = next(number for number, known in self._by_id.items() if known is watcher)
        self._outbox.put_nowait(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id)))

    async def close(self) -> None:
        """Raises what went wrong."""
        failed = self._task.done()
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._channel.close(None)
        if failed:
            self._task.result()

    def check(self) -> None:
        """Raises what ended the recording."""
        if self._task.done():
            self._task.result()

    async def _run(self) -> None:
        while True:
            outbox = self._outbox = asyncio.Queue()
            self._by_id.clear()
            self._unanswered = deque(watcher for watcher in self.watchers if not watcher.ended)
            for watcher in self._unanswered:
                outbox.put_nowait(watcher.create_request())
            call = self._method(_taken_from(outbox), metadata=self._metadata)
            try:
                await self._read(call)
            except grpc.aio.AioRpcError as error:
                self.broken.append(f"{error.code().name}: {error.details()}")
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                call.cancel()
                outbox.put_nowait(None)
                for watcher in self.watchers:
                    watcher.cut()

    async def _read(self, call: Call) -> None:
        """Until the server ends the stream or it is time to drop it."""
        count = 0
        async for response in call:
            self._take(response)
            count += 1
            if self._pause_after and count % self._pause_after == 0:
                await asyncio.sleep(self._pause_seconds)
            if count == self._drop_after:
                return
            await self.reading.wait()

    def _take(self, response: WatchResponse) -> None:
        if response.created:
            self._by_id[response.watch_id] = self._unanswered.popleft()
        if response.watch_id == WHOLE_STREAM:
            assert not response.events, f"events for no watcher: {response}"
            assert not response.canceled, f"the server refused a watch: {response}"
            for watcher in self._by_id.values():
                watcher.take(response)
            return
        watcher = self._by_id[response.watch_id]
        watcher.take(response)
        if watcher.ended:
            del self._by_id[response.watch_id]


async def _taken_from(outbox: asyncio.Queue[WatchRequest | None]) -> AsyncIterator[WatchRequest]:
    """Up to None."""
    while (request := await outbox.get()) is not None:
        yield request
