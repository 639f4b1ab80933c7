"""The blocking client's leases. One thread renews all that a client keeps alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from etcray.client import calls, results
from etcray.client.channels import BlockingChannels, status_of
from etcray.client.errors import EtcrayError, LeaseLostError, NotFoundError
from etcray.client.keeping import KeepAliveSchedule, OnLost, logger, loss_is_news, lost_error
from etcray.client.retry import EndpointRound
from etcray_storage.limits import KEEP_ALIVE_LEASES_MAX

if TYPE_CHECKING:
    from etcray.client.blocking import Client


class Keeper:
    """Renews leases in its thread, which lives while there are any."""

    def __init__(self, channels: BlockingChannels, endpoints: EndpointRound) -> None:
        self._channels = channels
        self._endpoints = endpoints
        self._schedule = KeepAliveSchedule()
        self._leases: dict[int, GrantedLease] = {}
        """Exactly the leases of the schedule."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, lease: GrantedLease) -> None:
        with self._changed:
            self._leases[lease.id] = lease
            self._schedule.add(lease.id, lease.ttl, lease.deadline, time.monotonic())
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="etcray-keep-alive", daemon=True)
                self._thread.start()

    def remove(self, lease: GrantedLease) -> None:
        with self._changed:
            if self._leases.get(lease.id) is lease:
                del self._leases[lease.id]
                self._schedule.remove(lease.id)
                self._changed.notify()

    def close(self) -> None:
        """Renew no more. The leases run out by themselves."""
        with self._changed:
            for lease_id in self._leases:
                self._schedule.remove(lease_id)
            self._leases.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                lost = [self._leases.pop(lease_id) for lease_id in self._schedule.take_expired(now)]
                due = self._schedule.due(now, KEEP_ALIVE_LEASES_MAX)
                timeout = self._schedule.attempt_seconds()
                wait = self._schedule.seconds_to_next(now)
                if wait is None and not lost:
                    self._thread = None
                    return
                if not lost and not due:
                    self._changed.wait(wait)
                    continue
            for lease in lost:
                lease.set_lost()
            if due:
                self._renew(due, timeout)

    def _renew(self, lease_ids: list[int], timeout: float) -> None:
        """One round: a request for each, answered in order."""
        import grpc

        sent_at = time.monotonic()
        endpoint = self._endpoints.current
        answers: dict[int, int] = {}
        requests = [calls.keep_alive_message(lease_id) for lease_id in lease_ids]
        try:
            method = self._channels.stream(endpoint, calls.KEEP_ALIVE_METHOD)
            answers.update(map(calls.keep_alive_answer, method(iter(requests), timeout=timeout)))
        except grpc.RpcError as error:
            self._endpoints.after_failure(status_of(error)[0], endpoint)
        with self._changed:
            self._schedule.failed(set(lease_ids) - answers.keys(), time.monotonic())
            lost = []
            for lease_id, ttl in answers.items():
                deadline = self._schedule.answered(lease_id, ttl, sent_at)
                lease = self._leases.get(lease_id)
                if lease is not None and deadline is not None:
                    lease.deadline = deadline
                elif lease is not None:
                    lost.append(self._leases.pop(lease_id))
        for lease in lost:
            lease.set_lost()


class GrantedLease:
    """A lease of the store: keys put with its `id` vanish when it is revoked or not renewed in time."""

    def __init__(self, client: Client, lease_id: int, ttl: int, deadline: float) -> None:
        self.id = lease_id
        self.ttl = ttl
        """Seconds that the server granted."""
        self.deadline = deadline
        """When it is over if nothing more is done, on this process's monotonic clock."""
        self.lost = threading.Event()
        """Set when a lease that was kept alive is lost all the same."""
        self._client = client
        self._on_lost: list[OnLost] = []

    def keep_alive_once(self) -> int:
        """Renew it now; the new TTL. Raises LeaseLostError if there is no such lease any more."""
        sent_at = time.monotonic()
        ttl = self._client._call(calls.keep_alive(self.id))
        if ttl <= 0:
            self.set_lost()
            raise lost_error(self.id)
        self.deadline = sent_at + ttl
        return ttl

    def keep_alive(self, on_lost: OnLost | None = None) -> None:
        """Renew it in the background until it is revoked or the client is closed.

        If it is lost, `lost` is set, an error is logged, and `on_lost` is called, in a thread of the
        client, where it must not wait for anything."""
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

    def time_to_live(self, keys: bool = False) -> results.TimeToLiveResult:
        """What the server says; with `keys`, also which keys are attached."""
        return self._client._call(calls.time_to_live(self.id, keys))

    def revoke(self) -> None:
        """End it and delete its keys; no error if it is gone already."""
        self._client._keeper.remove(self)
        try:
            self._client._call(calls.revoke_lease(self.id))
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


class Session:
    """A lease that is kept alive as long as this process needs it. Use it in `with`, or `open` and
    `close` it.

    When the lease is lost, which happens if this process or the servers are away for longer than
    `ttl` seconds, `lost` is set, `on_lost` is called, an error is logged, and `check` and the end of
    the `with` block raise LeaseLostError. A lost session does not come back.
    """

    def __init__(self, client: Client, ttl: int, on_lost: OnLost | None = None) -> None:
        self._client = client
        self._ttl = ttl
        self._on_lost = on_lost
        self._lease: GrantedLease | None = None

    @property
    def lease(self) -> GrantedLease:
        assert self._lease is not None, "the session is not open: use it in `with`"
        return self._lease

    @property
    def lost(self) -> threading.Event:
        return self.lease.lost

    def open(self) -> Self:
        """Raises what granting a lease raises."""
        assert self._lease is None, "a session is opened once"
        self._lease = self._client.lease(self._ttl)
        self._lease.keep_alive(self._on_lost)
        return self

    def check(self) -> None:
        """Raises LeaseLostError if the lease is lost."""
        self.lease.check()

    def close(self) -> None:
        """Revoke the lease: what was put with it vanishes."""
        self.lease.revoke()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = lost_error(self.lease.id) if self.lost.is_set() else None
        leave_block(self.close, lost, error)


def leave_block(
    release: Callable[[], None], lost: LeaseLostError | None, error: BaseException | None
) -> None:
    """The end of a `with` block that needed a lease. Raises the loss if there was one, or what kept
    `release` from working; but never in place of an error of the block that says more."""
    try:
        release()
    except EtcrayError as failure:
        if error is None and lost is None:
            raise
        logger.warning("not released, it ends with its lease: %s", failure)
    if lost is not None and loss_is_news(error):
        raise lost from error
