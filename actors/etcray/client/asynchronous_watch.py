"""The asyncio client's watches: one task reads the stream that all of them share, while there are any.
`blocking_watch` is the twin."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self, Unpack

from etcray.client import watching
from etcray.client.channels import AsyncChannels, status_of
from etcray.client.errors import UnavailableError, WatchCancelledError
from etcray.client.retry import EndpointRound
from etcray.client.values import Data
from etcray.client.watching import WatchBatch, WatchEvent, WatchHub, WatchOptions, WatchState
from etcray_storage.errors import Code

Outbox = asyncio.Queue[bytes | None]


class AsyncWatchStream:
    """The one stream of a client, opened when a first watch comes, dropped when the last one goes."""

    def __init__(self, channels: AsyncChannels, endpoints: EndpointRound) -> None:
        self.hub = WatchHub(random.Random())
        self._channels = channels
        self._endpoints = endpoints
        self._task: asyncio.Task[None] | None = None
        self._outbox: Outbox | None = None

    def add(self, state: WatchState) -> None:
        self.send(self.hub.add(state))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="etcray-watch")

    def send(self, messages: list[bytes]) -> None:
        for message in messages:
            assert self._outbox is not None, "a message for a stream that is not open"
            self._outbox.put_nowait(message)

    def drop_if_idle(self) -> None:
        if self.hub.is_idle and self._task is not None:
            self._task.cancel()
            self._task = None
            self.hub.dropped()

    async def close(self) -> None:
        """Cancels all watches, and returns when the task has ended."""
        self.hub.fail(WatchCancelledError(Code.CANCELED, "the client was closed"))
        task = self._task
        self.drop_if_idle()
        if task is not None:
            await asyncio.wait([task])

    async def _run(self) -> None:
        while not self.hub.is_idle:
            endpoint = self._endpoints.current
            code, message = await self._read(endpoint)
            self._endpoints.after_failure(code, endpoint)
            pause = self.hub.disconnected(code, message, len(self._endpoints.endpoints))
            if not self.hub.is_idle:
                await asyncio.sleep(pause)
        self._task = None

    async def _read(self, endpoint: str) -> tuple[Code, str]:
        """One stream until it ends; why it did."""
        import grpc.aio

        outbox = self._outbox = asyncio.Queue()
        method = self._channels.stream(endpoint, watching.METHOD)
        call = method(_taken_from(outbox), metadata=watching.METADATA)
        self.send(self.hub.connected())
        try:
            async for data in call:
                self.send(self.hub.received(data))
                self.drop_if_idle()
        except grpc.aio.AioRpcError as error:
            return status_of(error)
        finally:
            call.cancel()
            # After a failure, grpcio leaves its task that takes from the outbox to wait for ever.
            outbox.put_nowait(None)
        return Code.UNAVAILABLE, "the server ended the stream"


async def _taken_from(outbox: Outbox) -> AsyncIterator[bytes]:
    """Up to None."""
    while (message := await outbox.get()) is not None:
        yield message


class AsyncWatch:
    """Events of some keys, in order, each exactly once, whatever happens to connections and servers.

    Use it in `async with`, whose begin waits until the server has accepted the watch, or just iterate
    it; or take whole batches with `next_batch`. Ends after `cancel`, which leaving its block does,
    and with an error when it cannot go on: CompactedError, if the events that would come next were
    compacted away.
    """

    def __init__(
        self,
        stream: AsyncWatchStream,
        timeout: float,
        key: Data,
        range_end: Data | None,
        **options: Unpack[WatchOptions],
    ) -> None:
        self._stream = stream
        self._timeout = timeout
        self._state = WatchState(key, range_end, options)
        self._changed = asyncio.Event()
        self._state.changed = self._changed.set
        self._is_added = False
        self._events: Iterator[WatchEvent] = iter(())

    async def started(self) -> Self:
        """Returns when the server has accepted the watch: from then on nothing is missed."""
        state = self._state
        if not self._is_added:
            self._is_added = True
            self._stream.add(state)
        try:
            async with asyncio.timeout(self._timeout):
                while not state.was_created and state.error is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.cancel()
            raise UnavailableError(*self._stream.hub.last_failure) from None
        except BaseException:
            self.cancel()
            raise
        if not state.was_created:
            assert state.error is not None, "a watch neither started nor failed"
            raise state.error
        return self

    async def next_batch(self, timeout: float | None = None) -> WatchBatch | None:
        """The next batch of events, or news about progress. None if none came for `timeout` seconds.

        Raises WatchCancelledError after a `cancel`, CompactedError, or another error that ended it."""
        if not self._state.was_created and self._state.error is None:
            await self.started()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    batch = self._state.take()
                    if batch is not None:
                        self._stream.send(self._stream.hub.was_taken_from(self._state))
                        return batch
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None

    def cancel(self) -> None:
        """No event comes after this; whoever waits for one is woken."""
        self._stream.send(self._stream.hub.cancel(self._state))
        self._events = iter(())
        self._stream.drop_if_idle()

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        while True:
            for event in self._events:
                return event
            try:
                batch = await self.next_batch()
            except WatchCancelledError:
                raise StopAsyncIteration from None
            assert batch is not None, "a wait without a limit came back empty"
            self._events = iter(batch.events)

    async def __aenter__(self) -> Self:
        return await self.started()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
