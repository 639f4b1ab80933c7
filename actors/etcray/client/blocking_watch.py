"""The blocking client's watches: one thread reads the stream that all of them share.

The thread lives while there are watches. What it knows, the hub and the watches' queues, is under one
lock; each consumer waits on a condition of that lock that is its own.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from etcray.client import watching
from etcray.client.channels import BlockingChannels, status_of
from etcray.client.errors import UnavailableError, WatchCancelledError
from etcray.client.retry import EndpointRound
from etcray.client.values import Data
from etcray.client.watching import WatchBatch, WatchEvent, WatchHub, WatchOptions, WatchState
from etcray_storage.errors import Code

if TYPE_CHECKING:
    import grpc

Outbox = queue.SimpleQueue[bytes | None]


class WatchStream:
    """The one stream of a client, opened when a first watch comes, dropped when the last one goes."""

    def __init__(self, channels: BlockingChannels, endpoints: EndpointRound) -> None:
        self.lock = threading.RLock()
        self.hub = WatchHub(random.Random())
        self._channels = channels
        self._endpoints = endpoints
        self._wake = threading.Condition(self.lock)
        self._thread: threading.Thread | None = None
        self._call: grpc.Call | None = None
        self._outbox: Outbox = queue.SimpleQueue()

    def add(self, state: WatchState) -> None:
        """With the lock held, as for all methods of this class but `close`."""
        self.send(self.hub.add(state))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="etcray-watch", daemon=True)
            self._thread.start()

    def send(self, messages: list[bytes]) -> None:
        for message in messages:
            self._outbox.put(message)

    def drop_if_idle(self) -> None:
        if not self.hub.is_idle:
            return
        if self._call is not None:
            self._call.cancel()  # type: ignore[no-untyped-call]  # a gap of the stubs
            self._call = None
            self.hub.dropped()
        self._wake.notify_all()

    def close(self) -> None:
        """Cancels all watches, and returns when the thread has ended."""
        with self.lock:
            self.hub.fail(WatchCancelledError(Code.CANCELED, "the client was closed"))
            self.drop_if_idle()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self.lock:
                if self.hub.is_idle:
                    self._thread = None
                    return
                endpoint = self._endpoints.current
                outbox = self._outbox = queue.SimpleQueue()
                method = self._channels.stream(endpoint, watching.METHOD)
                call = method(iter(outbox.get, None), metadata=watching.METADATA)
                self._call = call
                self.send(self.hub.connected())
            code, message = self._read(call)
            outbox.put(None)
            with self.lock:
                if self._call is not call:
                    continue  # dropped; a watch may have come since
                self._call = None
                self._endpoints.after_failure(code, endpoint)
                pause = self.hub.disconnected(code, message, len(self._endpoints.endpoints))
                if pause > 0.0:
                    self._wake.wait_for(lambda: self.hub.is_idle, pause)

    def _read(self, call: grpc.CallIterator[bytes]) -> tuple[Code, str]:
        """Until the stream ends or is dropped; why it did."""
        import grpc

        try:
            for data in call:
                with self.lock:
                    if self._call is call:
                        self.send(self.hub.received(data))
                        self.drop_if_idle()
        except grpc.RpcError as error:
            return status_of(error)
        return Code.UNAVAILABLE, "the server ended the stream"


class Watch:
    """Events of some keys, in order, each exactly once, whatever happens to connections and servers.

    Iterate it, or take whole batches with `next_batch`; one of the two, in one thread. Ends after
    `cancel`, which leaving its `with` block does, and with an error when it cannot go on:
    CompactedError, if the events that would come next were compacted away.
    """

    def __init__(
        self,
        stream: WatchStream,
        timeout: float,
        key: Data,
        range_end: Data | None,
        **options: Unpack[WatchOptions],
    ) -> None:
        self._stream = stream
        self._state = WatchState(key, range_end, options)
        self._changed = threading.Condition(stream.lock)
        self._state.changed = self._changed.notify_all
        self._events: Iterator[WatchEvent] = iter(())
        with stream.lock:
            stream.add(self._state)
        self._await_start(timeout)

    def _await_start(self, timeout: float) -> None:
        try:
            with self._stream.lock:
                state = self._state
                self._changed.wait_for(lambda: state.was_created or state.error is not None, timeout)
                failure = self._stream.hub.last_failure
                if not state.was_created:
                    raise state.error or UnavailableError(*failure)
        except BaseException:
            self.cancel()
            raise

    def next_batch(self, timeout: float | None = None) -> WatchBatch | None:
        """The next batch of events, or news about progress. None if none came for `timeout` seconds.

        Raises WatchCancelledError after a `cancel`, CompactedError, or another error that ended it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._stream.lock:
            while True:
                batch = self._state.take()
                if batch is not None:
                    self._stream.send(self._stream.hub.was_taken_from(self._state))
                    return batch
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)

    def cancel(self) -> None:
        """No event comes after this. Any thread may call it; whoever waits for an event is woken."""
        with self._stream.lock:
            self._stream.send(self._stream.hub.cancel(self._state))
            self._events = iter(())
            self._stream.drop_if_idle()

    def __iter__(self) -> Iterator[WatchEvent]:
        return self

    def __next__(self) -> WatchEvent:
        while True:
            for event in self._events:
                return event
            try:
                batch = self.next_batch()
            except WatchCancelledError:
                raise StopIteration from None
            assert batch is not None, "a wait without a limit came back empty"
            self._events = iter(batch.events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
