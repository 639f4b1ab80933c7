"""etcdserverpb.Watch: one stream in both directions with many watchers.

The stream's requests are read by a task of their own, because they come at any time between responses.
While more responses wait than the bound allows, no further request is read: so a client that only asks
and never reads is stopped by HTTP/2 flow control.

A client that closes its side of the stream goes on receiving, as with etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.leader_guard import LeaderGuard
from etcray.gateway.service import ServiceContext
from etcray.gateway.watch_feed import WatchFeed
from etcray.gateway.watch_stream import WatchStream
from etcray_storage import limits
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc


class WatchService:
    def __init__(self, context: ServiceContext, feed: WatchFeed) -> None:
        self._context = context
        self._feed = feed
        self._guard = LeaderGuard(context.dispatcher)
        self._hub = feed.hub

    def register(self, router: Router) -> None:
        router.stream("/etcdserverpb.Watch/Watch", self.watch)

    async def watch(self, requests: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        """Ends only with the client, with an error, or with the gateway."""
        news = asyncio.Event()
        taken = asyncio.Event()
        hub = self._hub
        stream = hub.open_stream(news.set)

        def leader_lost(error: EtcdError) -> None:
            hub.end_stream(stream, error)

        if call.metadata("hasleader") == "true":
            self._guard.enter(leader_lost)
        reader = asyncio.create_task(self._read_requests(requests, stream, taken))
        reader.add_done_callback(lambda _: news.set())
        try:
            while stream.error is None:
                if reader.done():
                    reader.result()  # what stopped it, unless it is the end of the requests
                news.clear()
                while (response := hub.take(stream)) is not None:
                    taken.set()
                    yield response
                await news.wait()
            raise stream.error
        finally:
            self._guard.leave(leader_lost)
            hub.close_stream(stream)
            reader.cancel()

    async def _read_requests(
        self, requests: AsyncIterator[bytes], stream: WatchStream, taken: asyncio.Event
    ) -> None:
        async for data in requests:
            while len(stream.queue) >= limits.WATCH_STREAM_RESPONSES_MAX:
                taken.clear()
                await taken.wait()
            await self._handle(stream, parse_message(rpc.WatchRequest, data))

    async def _handle(self, stream: WatchStream, request: rpc.WatchRequest) -> None:
        """A request of no known kind is passed over, as in etcd."""
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            await self._feed.ready()
            if stream.error is None:
                now = asyncio.get_running_loop().time()
                answered = self._context.dispatcher.highest_revision
                self._hub.create(stream, request.create_request, answered, now)
        elif kind == "cancel_request":
            self._hub.cancel(stream, request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._hub.request_progress(stream)
