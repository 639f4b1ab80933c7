"""etcdserverpb.Lease: leases, which end when nobody renews them.

A grant without an id gets a random one here, before it enters the log, because applying an entry must
not draw random numbers. Renewals of all streams travel together (`keep_alives`); on one stream they are
answered in the order in which they came, and the next are sent before the first are answered, because
one client may renew thousands of leases on one stream.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from etcray.gateway.dispatcher import Reply
from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.leader_guard import LeaderGuard
from etcray.gateway.service import ServiceContext
from etcray_storage import limits
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import LEASE_TTL_TOO_LARGE, EtcdError, error_by_number
from etcray_storage.proto import rpc_pb2 as rpc

_LEASE_ID_MAX: Final = (1 << 63) - 1


class LeaseService:
    def __init__(self, context: ServiceContext, rng: random.Random) -> None:
        self._context = context
        self._dispatcher = context.dispatcher
        self._rng = rng
        self._guard = LeaderGuard(context.dispatcher)

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        router.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        router.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        router.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)

    async def grant(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.LeaseGrantRequest, request)
        if message.TTL > limits.LEASE_TTL_SECONDS_MAX:
            raise error_by_number(LEASE_TTL_TOO_LARGE.number)
        if message.ID == 0:
            message.ID = self._rng.randint(1, _LEASE_ID_MAX)
            request = message.SerializeToString()
        return self._context.answer(await self._dispatcher.propose(CommandKind.LEASE_GRANT, request))

    async def revoke(self, request: bytes, _call: Call) -> bytes:
        parse_message(rpc.LeaseRevokeRequest, request)
        return self._context.answer(await self._dispatcher.propose(CommandKind.LEASE_REVOKE, request))

    async def time_to_live(self, request: bytes, _call: Call) -> bytes:
        parse_message(rpc.LeaseTimeToLiveRequest, request)
        return await self._read(ReadKind.LEASE_TIME_TO_LIVE, request)

    async def leases(self, request: bytes, _call: Call) -> bytes:
        parse_message(rpc.LeaseLeasesRequest, request)
        return await self._read(ReadKind.LEASE_LEASES, request)

    async def _read(self, kind: ReadKind, request: bytes) -> bytes:
        """By the leader, because only its clock runs."""
        return self._context.answer(await self._dispatcher.read(kind, request, serializable=False))

    async def keep_alive(self, requests: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        """One answer a request, in order. The first error ends the stream."""
        renewals = _Renewals()
        reader = asyncio.get_running_loop().create_task(self._read_renewals(requests, renewals))
        guarded = call.metadata("hasleader") == "true"
        if guarded:
            self._guard.enter(renewals.fail)
        try:
            while (renewal := await renewals.take()) is not None:
                yield self._context.answer(await renewal)
            await reader
        finally:
            self._guard.leave(renewals.fail)
            reader.cancel()
            renewals.forget()

    async def _read_renewals(self, requests: AsyncIterator[bytes], renewals: _Renewals) -> None:
        """Submit what arrives. An error waits behind the answers to what came before."""
        error: EtcdError | None = None
        try:
            async for request in requests:
                lease = parse_message(rpc.LeaseKeepAliveRequest, request).ID
                await renewals.add(self._dispatcher.keep_alive(lease))
        except EtcdError as refused:
            error = refused
        finally:
            renewals.end(error)


class _Renewals:
    """The renewals of one stream, oldest first, bounded: `add` waits for room."""

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[Reply]] = deque()
        self._taken: asyncio.Future[Reply] | None = None
        self._changed = asyncio.Event()
        self._ended = False
        self._error: EtcdError | None = None

    async def add(self, renewal: asyncio.Future[Reply]) -> None:
        self._futures.append(renewal)
        self._changed.set()
        while len(self._futures) >= limits.KEEP_ALIVES_PER_STREAM_MAX:
            self._changed.clear()
            await self._changed.wait()

    async def take(self) -> asyncio.Future[Reply] | None:
        """The next one; None at the end. Raises the error that ends the stream."""
        while not self._futures:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._taken = self._futures.popleft()
        self._changed.set()
        return self._taken

    def end(self, error: EtcdError | None) -> None:
        """Nothing comes after what is there."""
        self._ended = True
        self._error = self._error or error
        self._changed.set()

    def fail(self, error: EtcdError) -> None:
        """End now: what waits for an answer gets this error instead."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_exception(error)
        self.forget()
        self.end(error)

    def forget(self) -> None:
        for future in self._futures:
            future.cancel()
        self._futures.clear()
