"""A watch stream through grpcio, as a blocking conversation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import grpc

from etcray_storage.proto import rpc_pb2 as rpc

WATCH = "/etcdserverpb.Watch/Watch"


class WatchConversation:
    """A context manager: requests go in when asked, responses come out one by one."""

    def __init__(self, address: str, *, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.responses: queue.Queue[rpc.WatchResponse] = queue.Queue()
        self.error: grpc.RpcError | None = None
        self._ended = threading.Event()
        method = self._channel.stream_stream(WATCH, request_serializer=None, response_deserializer=None)
        self._call: Any = method(self._iterate(), metadata=metadata)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _iterate(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for data in self._call:
                self.responses.put(rpc.WatchResponse.FromString(data))
        except grpc.RpcError as error:
            self.error = error
        self._ended.set()

    def create(self, key: bytes, range_end: bytes = b"", **fields: Any) -> None:
        request = rpc.WatchCreateRequest(key=key, range_end=range_end, **fields)
        self.send(rpc.WatchRequest(create_request=request))

    def created(self, key: bytes, range_end: bytes = b"", **fields: Any) -> rpc.WatchResponse:
        """Create a watcher and take its first response."""
        self.create(key, range_end, **fields)
        return self.next()

    def cancel(self, watch_id: int) -> None:
        self.send(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=watch_id)))

    def progress(self) -> None:
        self.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def send(self, request: rpc.WatchRequest) -> None:
        self._requests.put(request.SerializeToString())

    def half_close(self) -> None:
        self._requests.put(None)

    def next(self, seconds: float = 10.0) -> rpc.WatchResponse:
        return self.responses.get(timeout=seconds)

    def nothing(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        try:
            response = self.responses.get(timeout=seconds)
        except queue.Empty:
            return True
        raise AssertionError(f"unexpected: {response}")

    def events(self, count: int) -> list[tuple[int, bytes, int]]:
        """Take responses until there are so many events: (type, key, mod revision) of each."""
        found: list[tuple[int, bytes, int]] = []
        while len(found) < count:
            found += [(event.type, event.kv.key, event.kv.mod_revision) for event in self.next().events]
        assert len(found) == count, f"{len(found)} events instead of {count}"
        return found

    def end(self, seconds: float = 10.0) -> grpc.StatusCode:
        """Wait for the end of the stream."""
        assert self._ended.wait(seconds), "the stream goes on"
        code: grpc.StatusCode = self._call.code()
        return code

    def __enter__(self) -> WatchConversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._reader.join(10)
        self._channel.close()
