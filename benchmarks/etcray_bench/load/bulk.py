"""Requests in bulk, outside of what is measured: empty the store, write all keys, revoke leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Final

from etcray_bench.load.connection import Call
from etcray_bench.load.errors import CheckFailedError, ConnectError, LoadError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.messages import LEASE_REVOKE, RANGE, TXN, lease_request
from etcray_bench.load.options import WRITERS_MAX, Load
from etcray_bench.load.streaming import StreamConnection, connect
from etcray_storage.proto import rpc_pb2

DELETE_RANGE: Final = "/etcdserverpb.KV/DeleteRange"
UNDER_WAY: Final = 4
"""Transactions of the preload. More would make a store's queues the limit."""
REVOCATIONS_UNDER_WAY: Final = 64
TXN_PUTS: Final = 128
"""As many operations as etcd allows by default."""
TXN_BYTES: Final = 60_000
"""As much as every server takes at once."""
PUT_BYTES_AROUND: Final = 16
"""Tags and lengths of a put in a transaction."""
REQUEST_SECONDS_MAX: Final = 120.0
"""Deleting a million keys is one request."""
PRELOADER: Final = WRITERS_MAX + 1
"""Who wrote the values that are there when the load begins."""
_UNIMPLEMENTED: Final = "(status 12)"

Answered = Callable[[bytes], None]
BulkRequest = tuple[str, bytes, Answered]


class _BulkCall(Call):
    """Sends one request after the other, taken from an iterator that several share."""

    __slots__ = ("_bulk", "_on_answer", "_path")

    def __init__(self, bulk: _Bulk) -> None:
        super().__init__()
        self._bulk = bulk
        self._path = ""
        self._on_answer: Answered | None = None

    def next(self) -> None:
        for path, message, on_answer in self._bulk.requests:
            self._path, self._on_answer = path, on_answer
            self._bulk.connection.begin(self, path, message)
            return
        self._bulk.one_ended()

    def answered(self, message: bytes, now: float) -> None:
        assert self._on_answer is not None, "an answer to nothing"
        self._on_answer(message)
        self.next()

    def failed(self, error: str, now: float) -> None:
        self._bulk.fail(f"{self._path} of the preparation failed: {error}")


class _Bulk:
    def __init__(self, connection: StreamConnection, requests: Iterator[BulkRequest], under_way: int) -> None:
        self.connection = connection
        self.requests = requests
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = under_way
        for _ in range(under_way):
            _BulkCall(self).next()

    def one_ended(self) -> None:
        self._running -= 1
        if not self._running and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(error))


async def in_bulk(connection: StreamConnection, requests: Iterable[BulkRequest], under_way: int) -> None:
    """Raises LoadError at the first request that fails."""
    bulk = _Bulk(connection, iter(requests), under_way)
    while not (await asyncio.wait([bulk.done], timeout=1.0))[0]:
        connection.expire(perf_counter() - REQUEST_SECONDS_MAX, f"no answer within {REQUEST_SECONDS_MAX} s")
    bulk.done.result()


async def connect_to_store(endpoint: str) -> StreamConnection:
    """Raises ConnectError if it is none."""
    connection = await connect(endpoint)
    try:
        revision = await store_revision(connection)
    except LoadError as error:
        connection.close()
        if _UNIMPLEMENTED in str(error):
            raise ConnectError(f"{endpoint} is a gRPC server, but no etcd: {error}") from error
        raise
    if not revision:
        connection.close()
        raise ConnectError(f"{endpoint} is a gRPC server, but its answers are not etcd's")
    return connection


async def store_revision(connection: StreamConnection) -> int:
    """By a linearizable read."""
    found: list[int] = []

    def note(answer: bytes) -> None:
        found.append(rpc_pb2.RangeResponse.FromString(answer).header.revision)

    request = rpc_pb2.RangeRequest(key=b"\0", count_only=True).SerializeToString()
    await in_bulk(connection, [(RANGE, request, note)], 1)
    return found[0]


async def empty_and_preload(load: Load, ledger: Ledger, on_progress: Callable[[int], None]) -> int:
    """Delete what is below the prefix, and write all keys if the load wants them. The ledger is told.
    Returns the store's revision then."""
    connection = await connect_to_store(load.endpoints[0])
    try:
        space = KeySpace(load.prefix.encode(), load.key_bytes)
        deletion = rpc_pb2.DeleteRangeRequest(key=space.prefix, range_end=space.end).SerializeToString()
        await in_bulk(connection, [(DELETE_RANGE, deletion, lambda answer: None)], 1)
        if load.is_preloaded:
            await in_bulk(connection, _preload(load, space, ledger, on_progress), UNDER_WAY)
        return await store_revision(connection)
    finally:
        connection.close()


def _preload(
    load: Load, space: KeySpace, ledger: Ledger, on_progress: Callable[[int], None]
) -> Iterator[BulkRequest]:
    values = Values(load)
    sizes = values.sizes
    step = max(1, min(TXN_PUTS, TXN_BYTES // (sizes[-1] + len(space.key(0)) + PUT_BYTES_AROUND)))
    stamp = PRELOADER << 32

    def written(first: int, last: int) -> Answered:
        def answered(answer: bytes) -> None:
            response = rpc_pb2.TxnResponse.FromString(answer)
            for key in range(first, last):
                ledger.put(key, response.header.revision, stamp)
            on_progress(last)

        return answered

    for first in range(0, load.keys, step):
        last = min(first + step, load.keys)
        txn = rpc_pb2.TxnRequest(
            success=[
                rpc_pb2.RequestOp(
                    request_put=rpc_pb2.PutRequest(
                        key=space.key(key), value=values.value(key, stamp, sizes[key % len(sizes)])
                    )
                )
                for key in range(first, last)
            ]
        )
        yield TXN, txn.SerializeToString(), written(first, last)


async def revoke_all(load: Load, leases: Iterable[int]) -> None:
    """So that a run leaves no leases behind."""
    connection = await connect(load.endpoints[0])

    def revoked(answer: bytes) -> None:
        if not rpc_pb2.LeaseRevokeResponse.FromString(answer).header.revision:
            raise CheckFailedError("a lease was revoked, and the answer has no revision")

    try:
        requests = ((LEASE_REVOKE, lease_request(lease), revoked) for lease in leases)
        await in_bulk(connection, requests, REVOCATIONS_UNDER_WAY)
    finally:
        connection.close()
