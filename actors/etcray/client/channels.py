"""grpcio's channels, one per endpoint, made when they are first needed.

grpcio is imported here and nowhere else, inside the functions: importing it takes a noticeable part
of a second, which a Ray worker that never calls the store should not pay.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from etcray_storage.errors import Code

if TYPE_CHECKING:
    import grpc
    import grpc.aio

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # grpcio's default of 4 MiB fails on large ranges; etcd's Go client has this one.
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", -1),
    # A member that restarts should be found again within a second, not after grpcio's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A watch on a machine that vanished would wait for ever. etcd allows a ping every 5 seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise clients of one process share connections, and their back-off, behind their backs.
    ("grpc.use_local_subchannel_pool", 1),
)


class BlockingChannels:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._methods: dict[tuple[str, str], grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def method(self, endpoint: str, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        found = self._methods.get((endpoint, path))
        if found is not None:
            return found
        with self._lock:
            made: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel(endpoint).unary_unary(
                path, None, None
            )
            self._methods[endpoint, path] = made
            return made

    def stream(self, endpoint: str, path: str) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
        with self._lock:
            made: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel(endpoint).stream_stream(
                path, None, None
            )
            return made

    def _channel(self, endpoint: str) -> grpc.Channel:
        """To be called with the lock held."""
        import grpc

        channel = self._channels.get(endpoint)
        if channel is None:
            channel = grpc.insecure_channel(endpoint, options=OPTIONS)
            self._channels[endpoint] = channel
        return channel

    def close(self) -> None:
        with self._lock:
            self._methods.clear()
            while self._channels:
                self._channels.popitem()[1].close()


class AsyncChannels:
    """Belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._methods: dict[tuple[str, str], grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def method(self, endpoint: str, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        found = self._methods.get((endpoint, path))
        if found is not None:
            return found
        made: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel(endpoint).unary_unary(
            path, None, None
        )
        self._methods[endpoint, path] = made
        return made

    def stream(self, endpoint: str, path: str) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
        made: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel(endpoint).stream_stream(
            path, None, None
        )
        return made

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        import grpc.aio

        channel = self._channels.get(endpoint)
        if channel is None:
            channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
            self._channels[endpoint] = channel
        return channel

    async def close(self) -> None:
        self._methods.clear()
        while self._channels:
            await self._channels.popitem()[1].close(None)


def status_of(error: grpc.RpcError) -> tuple[Code, str]:
    """The code and the text of a failed call."""
    import grpc.aio

    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError), f"an error without a status: {error!r}"
    return Code(error.code().value[0]), error.details() or ""
