"""The asyncio client's leases. One task renews all that a client keeps alive; `blocking_lease` is the twin,
except that here a loss also cancels the task that is inside the `async with` block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from etcray.client import calls, results
from etcray.client.channels import AsyncChannels, status_of
from etcray.client.errors import EtcrayError, LeaseLostError, NotFoundError
from etcray.client.keeping import KeepAliveSchedule, OnLost, logger, loss_is_news, lost_error
from etcray.client.retry import EndpointRound
from etcray_storage.limits import KEEP_ALIVE_LEASES_MAX

if TYPE_CHECKING:
    from etcray.client.asynchronous import AsyncClient


class AsyncKeeper:
    """Renews leases in its task, which lives while there are any."""

    def __init__(self, channels: AsyncChannels, endpoints: EndpointRound) -> None:
        self._channels = channels
        self._endpoints = endpoints
        self._schedule = KeepAliveSchedule()
        self._leases: dict[int, AsyncGrantedLease] = {}
        """Exactly the leases of the schedule."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, lease: AsyncGrantedLease) -> None:
        self._leases[lease.id] = lease
        self._schedule.add(lease.id, lease.ttl, lease.deadline, time.monotonic())
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="etcray-keep-alive")

    def remove(self, lease: AsyncGrantedLease) -> None:
        if self._leases.get(lease.id) is lease:
            del self._leases[lease.id]
            self._schedule.remove(lease.id)
            self._changed.set()

    async def close(self) -> None:
        """Renew no more. The leases run out by themselves."""
        for lease_id in self._leases:
            self._schedule.remove(lease_id)
        self._leases.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            for lease_id in self._schedule.take_expired(now):
                self._leases.pop(lease_id).set_lost()
            due = self._schedule.due(now, KEEP_ALIVE_LEASES_MAX)
            wait = self._schedule.seconds_to_next(now)
            if wait is None:
                self._task = None
                return
            if due:
                await self._renew(due, self._schedule.attempt_seconds())
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _renew(self, lease_ids: list[int], timeout: float) -> None:
        """One round: a request for each, answered in order."""
        import grpc.aio

        sent_at = time.monotonic()
        endpoint = self._endpoints.current
        answers: dict[int, int] = {}
        requests = [calls.keep_alive_message(lease_id) for lease_id in lease_ids]
        try:
            method = self._channels.stream(endpoint, calls.KEEP_ALIVE_METHOD)
            async for data in method(iter(requests), timeout=timeout):
                lease_id, ttl = calls.keep_alive_answer(data)
                answers[lease_id] = ttl
        except grpc.aio.AioRpcError as error:
            self._endpoints.after_failure(status_of(error)[0], endpoint)
        self._schedule.failed(set(lease_ids) - answers.keys(), time.monotonic())
        for lease_id, ttl in answers.items():
            deadline = self._schedule.answered(lease_id, ttl, sent_at)
            lease = self._leases.get(lease_id)
            if lease is not None and deadline is not None:
                lease.deadline = deadline
            elif lease is not None:
                self._leases.pop(lease_id).set_lost()


class AsyncGrantedLease:
    """A lease of the store: keys put with its `id` vanish when it is revoked or not renewed in time."""

    def __init__(self, client: AsyncClient, lease_id: int, ttl: int, deadline: float) -> None:
        self.id = lease_id
        self.ttl = ttl
        """Seconds that the server granted."""
        self.deadline = deadline
        """When it is over if nothing more is done, on this process's monotonic clock."""
        self.lost = asyncio.Event()
        """Set when a lease that was kept alive is lost all the same."""
        self._client = client
        self._on_lost: list[OnLost] = []

    async def keep_alive_once(self) -> int:
        """Renew it now; the new TTL. Raises LeaseLostError if there is no such lease any more."""
        sent_at = time.monotonic()
        ttl = await self._client._call(calls.keep_alive(self.id))
        if ttl <= 0:
            self.set_lost()
            raise lost_error(self.id)
        self.deadline = sent_at + ttl
        return ttl

    async def keep_alive(self, on_lost: OnLost | None = None) -> None:
        """Renew it in the background until it is revoked or the client is closed.

        If it is lost, `lost` is set, an error is logged, and `on_lost` is called, by a task of the
        client."""
        if on_lost is not None:
            self.tell_when_lost(on_lost)
        self._client._keeper.add(self)

    def tell_when_lost(self, on_lost: OnLost) -> None:
        """Also call this when it is lost; at once if it is already."""
        self._on_lost.append(on_lost)
        if self.lost.is_set():
            on_lost()

    def do_not_tell(self, on_lost: OnLost) -> None:
        """Take back `tell_when_lost`."""
        self._on_lost.remove(on_lost)

    def check(self) -> None:
        """Raises LeaseLostError if it is lost, or if its time ran out on this process's clock."""
        if self.lost.is_set() or time.monotonic() >= self.deadline:
            raise lost_error(self.id)

    async def time_to_live(self, keys: bool = False) -> results.TimeToLiveResult:
        """What the server says; with `keys`, also which keys are attached."""
        return await self._client._call(calls.time_to_live(self.id, keys))

    async def revoke(self) -> None:
        """End it and delete its keys; no error if it is gone already."""
        self._client._keeper.remove(self)
        try:
            await self._client._call(calls.revoke_lease(self.id))
        except NotFoundError:
            return

    def set_lost(self) -> None:
        """Tell everybody, once."""
        if self.lost.is_set():
            return
        self.lost.set()
        logger.error("lease %x is lost: its keys are gone, or will be soon", self.id)
        for tell in tuple(self._on_lost):
            try:
                tell()
            except Exception:
                logger.exception("a callback for the loss of lease %x failed", self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id:x}, ttl={self.ttl})"


class Owner:
    """The task inside an `async with` block that makes no sense without its lease: cancelled when the
    lease is lost, as `asyncio.timeout` does it. The block then ends with an error instead."""

    def __init__(self, lease: AsyncGrantedLease) -> None:
        task = asyncio.current_task()
        assert task is not None, "a lease is owned by a task"
        self._task = task
        self._lease = lease
        self._requests_before = task.cancelling()
        self._has_cancelled = False
        lease.tell_when_lost(self._cancel)

    def _cancel(self) -> None:
        self._has_cancelled = True
        self._task.cancel()

    def release(self) -> None:
        """The block ends: from here on the task is its own again."""
        self._lease.do_not_tell(self._cancel)
        if self._has_cancelled:
            self._task.uncancel()

    def was_interrupted(self, error: BaseException | None) -> bool:
        """True if the block ended because of us, and not because somebody else cancelled the task too.
        To be asked after `release`."""
        return (
            self._has_cancelled
            and isinstance(error, asyncio.CancelledError)
            and self._task.cancelling() <= self._requests_before
        )


class AsyncSession:
    """A lease that is kept alive as long as this process needs it. Use it in `async with`, or `open` and
    `close` it.

    When the lease is lost, which happens if this process or the servers are away for longer than
    `ttl` seconds, `lost` is set, `on_lost` is called, an error is logged, the task inside the
    `async with` block is cancelled, and the block ends with LeaseLostError. A lost session does not
    come back.
    """

    def __init__(self, client: AsyncClient, ttl: int, on_lost: OnLost | None = None) -> None:
        self._client = client
        self._ttl = ttl
        self._on_lost = on_lost
        self._lease: AsyncGrantedLease | None = None
        self._owner: Owner | None = None

    @property
    def lease(self) -> AsyncGrantedLease:
        assert self._lease is not None, "the session is not open: use it in `async with`"
        return self._lease

    @property
    def lost(self) -> asyncio.Event:
        return self.lease.lost

    async def open(self) -> Self:
        """Raises what granting a lease raises."""
        assert self._lease is None, "a session is opened once"
        self._lease = await self._client.lease(self._ttl)
        await self._lease.keep_alive(self._on_lost)
        return self

    def check(self) -> None:
        """Raises LeaseLostError if the lease is lost."""
        self.lease.check()

    async def close(self) -> None:
        """Revoke the lease: what was put with it vanishes."""
        await self.lease.revoke()

    async def __aenter__(self) -> Self:
        await self.open()
        self._owner = Owner(self.lease)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._owner is not None, "a session was left that was not entered"
        lost = lost_error(self.lease.id) if self.lost.is_set() else None
        await leave_block(self.close, self._owner, lost, error)


async def leave_block(
    release: Callable[[], Awaitable[None]],
    owner: Owner | None,
    lost: LeaseLostError | None,
    error: BaseException | None,
) -> None:
    """The end of an `async with` block that needed a lease. Raises the loss if there was one, or what
    kept `release` from working; but never in place of an error of the block that says more."""
    if owner is not None:
        owner.release()
    try:
        await release()
    except EtcrayError as failure:
        if error is None and lost is None:
            raise
        logger.warning("not released, it ends with its lease: %s", failure)
    if lost is not None and (loss_is_news(error) or (owner is not None and owner.was_interrupted(error))):
        raise lost from error
