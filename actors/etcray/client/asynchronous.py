"""The asyncio client. `blocking` is its twin; everything but the waiting is shared."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from etcray.client import calls, results
from etcray.client.asynchronous_lease import AsyncGrantedLease, AsyncKeeper, AsyncSession
from etcray.client.asynchronous_lock import AsyncElection, AsyncLock
from etcray.client.asynchronous_watch import AsyncWatch, AsyncWatchStream
from etcray.client.channels import AsyncChannels, status_of
from etcray.client.errors import EtcrayError, NotFoundError
from etcray.client.keeping import OnLost
from etcray.client.requests import (
    DeleteOptions,
    FilterOptions,
    PutOptions,
    RangeOptions,
    TxnParts,
)
from etcray.client.retry import Attempts, EndpointRound, parse_endpoints
from etcray.client.sql import Parameters, SqlCall, SqlResult
from etcray.client.values import Data
from etcray.client.watching import WatchOptions
from etcray_storage import errors as store

Result = TypeVar("Result")


class AsyncClient:
    """A client for the tasks of one event loop, the one in which it is first used. Connects then; `close`
    it, or use it in `async with`.

    `endpoints` is a list, or a text with commas; they are used in turn, the next one when one fails.
    `timeout` bounds each call in seconds, its retries included.
    """

    def __init__(self, endpoints: str | Sequence[str] = "127.0.0.1:2379", timeout: float = 5.0) -> None:
        self.endpoints = parse_endpoints(endpoints)
        self.timeout = timeout
        self._round = EndpointRound(self.endpoints)
        self._channels = AsyncChannels()
        self._jitter = random.Random()
        self._watches = AsyncWatchStream(self._channels, self._round)
        self._keeper = AsyncKeeper(self._channels, self._round)

    async def put(self, key: Data, value: Data, **options: Unpack[PutOptions]) -> results.PutResult:
        return await self._call(calls.put(key, value, options))

    async def get(
        self, key: Data, *, revision: int = 0, serializable: bool = False
    ) -> results.KeyValue | None:
        """The pair at a key, or None if there is none."""
        options = RangeOptions(revision=revision, serializable=serializable)
        return calls.first(await self._call(calls.range(key, None, options)))

    async def range(
        self, key: Data, range_end: Data | None = None, **options: Unpack[RangeOptions]
    ) -> results.RangeResult:
        """The pairs from `key` up to, without, `range_end`; see `RangeOptions` for the rest."""
        return await self._call(calls.range(key, range_end, options))

    async def get_prefix(self, prefix: Data, **options: Unpack[FilterOptions]) -> results.RangeResult:
        """The pairs whose keys start with `prefix`."""
        return await self._call(
            calls.range(prefix, None, RangeOptions(prefix=True, from_key=False, **options))
        )

    async def delete(
        self, key: Data, range_end: Data | None = None, **options: Unpack[DeleteOptions]
    ) -> results.DeleteResult:
        return await self._call(calls.delete(key, range_end, options))

    def txn(self) -> AsyncTxn:
        """A transaction to be filled in and committed."""
        return AsyncTxn(self)

    async def compact(self, revision: int, physical: bool = False) -> results.CompactResult:
        """Forget what is older than `revision`. With `physical`, returns when the space is free."""
        return await self._call(calls.compact(revision, physical))

    def watch(self, key: Data, range_end: Data | None = None, **options: Unpack[WatchOptions]) -> AsyncWatch:
        """The events of a key, or of several, from now on or from a revision; see `WatchOptions`.

        To be used in `async with`: nothing that happens inside is missed."""
        return AsyncWatch(self._watches, self.timeout, key, range_end, **options)

    async def request_progress(self) -> None:
        """Ask the server how far it is. The answer is a batch without events for every watch of this
        client; none comes while one of them is behind."""
        self._watches.send(self._watches.hub.request_progress())

    async def lease(self, ttl: int, id: int = 0) -> AsyncGrantedLease:
        """A new lease of so many seconds; with `id` 0 the server chooses one."""
        granted_at = time.monotonic()
        granted = await self._call(calls.grant_lease(ttl, id))
        return AsyncGrantedLease(self, granted.id, granted.ttl, granted_at + granted.ttl)

    async def find_lease(self, id: int) -> AsyncGrantedLease:
        """A lease that somebody else was granted. Raises NotFoundError if there is none."""
        asked_at = time.monotonic()
        found = await self._call(calls.time_to_live(id, False))
        if found.ttl < 0:
            raise NotFoundError(store.LEASE_NOT_FOUND.code, store.LEASE_NOT_FOUND.message)
        return AsyncGrantedLease(self, id, found.granted_ttl, asked_at + found.ttl)

    async def leases(self) -> tuple[int, ...]:
        """The ids of all leases."""
        return await self._call(calls.leases())

    def session(self, ttl: int = 60, on_lost: OnLost | None = None) -> AsyncSession:
        """A lease that is kept alive; to be used in `async with`."""
        return AsyncSession(self, ttl, on_lost)

    def lock(
        self, name: Data, ttl: int = 10, timeout: float | None = None, session: AsyncSession | None = None
    ) -> AsyncLock:
        """A lock of that name; to be used in `async with`, which waits at most `timeout` seconds for it and
        then raises LockTimeoutError. Without a session it has a lease of `ttl` seconds."""
        return AsyncLock(self, name, ttl, timeout, session)

    def election(self, name: Data, ttl: int = 10, session: AsyncSession | None = None) -> AsyncElection:
        """An election of that name. Without a session it has a lease of `ttl` seconds."""
        return AsyncElection(self, name, ttl, session)

    async def sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        *,
        stale: bool = False,
        timeout: float | None = None,
        rows_max: int | None = None,
    ) -> SqlResult:
        """As `Client.sql`; a cancelled task cancels the query."""
        call = SqlCall(
            query,
            parameters,
            stale=stale,
            timeout=timeout,
            rows_max=rows_max,
            retry_seconds=self.timeout,
        )
        try:
            return await asyncio.to_thread(call.run, self._round, self._jitter)
        except asyncio.CancelledError:
            call.abort()
            raise

    async def members(self) -> tuple[results.Member, ...]:
        return await self._call(calls.members())

    async def status(self) -> results.StatusResult:
        """The state of the member behind the endpoint in use."""
        return await self._call(calls.status())

    async def close(self) -> None:
        """Drop the connections. Calls under way fail, watches end, leases are not kept alive any more;
        a later call connects again."""
        await self._watches.close()
        await self._keeper.close()
        await self._channels.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...], float]]:
        return (type(self), (self.endpoints, self.timeout))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self.endpoints)!r}, timeout={self.timeout})"

    async def _call(self, call: calls.Call[Result]) -> Result:
        import grpc.aio

        attempts = Attempts(
            writes=call.writes,
            endpoints=len(self.endpoints),
            deadline=time.monotonic() + self.timeout,
            jitter=self._jitter,
        )
        while True:
            endpoint = self._round.current
            method = self._channels.method(endpoint, call.method)
            try:
                answer = await method(call.request, timeout=attempts.seconds_left(time.monotonic()))
            except grpc.aio.AioRpcError as error:
                code, message = status_of(error)
                self._round.after_failure(code, endpoint)
                decision = attempts.after_failure(code, message, time.monotonic())
                if isinstance(decision, EtcrayError):
                    raise decision from error
            else:
                return call.read_answer(answer)
            await asyncio.sleep(decision)


class AsyncTxn(TxnParts):
    """A transaction of an `AsyncClient`; see `TxnParts`."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def commit(self) -> results.TxnResult:
        return await self._client._call(calls.txn(self.request()))
