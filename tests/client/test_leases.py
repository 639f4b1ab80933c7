"""Leases and sessions of both clients, against a real etcd."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time

import pytest

from etcray.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    LeaseLostError,
    NotFoundError,
    PreconditionError,
)
from etcray_bench.etcd import EtcdCluster
from tests.client.conftest import Maker


def until_set(event: threading.Event | asyncio.Event, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not event.is_set():
        assert time.monotonic() < deadline, "it was never set"
        time.sleep(0.02)


def test_lease_holds_its_keys_and_takes_them_along(store: Client) -> None:
    lease = store.lease(60)
    store.put("a", "1", lease=lease.id)
    store.put("b", "2", lease=lease.id)
    left = lease.time_to_live(keys=True)
    assert (left.id, left.granted_ttl, sorted(left.keys)) == (lease.id, 60, [b"a", b"b"])
    assert 55 <= left.ttl <= 60
    assert lease.time_to_live().keys == ()
    assert lease.id in store.leases()
    lease.revoke()
    assert store.get_prefix("").count == 0
    assert lease.time_to_live().ttl == -1
    lease.revoke()  # no error: it is gone, as wanted


def test_keep_alive_once_renews(store: Client) -> None:
    lease = store.lease(3)
    time.sleep(1.2)
    assert lease.time_to_live().ttl < 2
    assert lease.keep_alive_once() == 3
    assert lease.time_to_live().ttl >= 2
    lease.revoke()
    with pytest.raises(LeaseLostError):
        lease.keep_alive_once()
    assert lease.lost.is_set()


def test_lease_id_can_be_chosen_once(store: Client) -> None:
    lease = store.lease(30, id=4711)
    assert (lease.id, store.find_lease(4711).ttl) == (4711, 30)
    with pytest.raises(PreconditionError, match="lease already exists"):
        store.lease(30, id=4711)
    lease.revoke()
    with pytest.raises(NotFoundError):
        store.find_lease(4711)
    with pytest.raises(InvalidRequestError, match="too large lease TTL"):
        store.lease(9_000_000_001)


def test_lease_in_the_background_outlives_its_ttl_until_the_client_closes(
    make_client: Maker, store: Client
) -> None:
    client = make_client(store.endpoints)
    lease = client.lease(2)
    lease.keep_alive()
    time.sleep(2.5)
    lease.check()
    assert lease.time_to_live().ttl >= 0
    client.close()
    deadline = time.monotonic() + 10
    while lease.id in store.leases():
        assert time.monotonic() < deadline, "the lease did not run out"
        time.sleep(0.1)
    with pytest.raises(LeaseLostError):
        lease.check()


def test_session_ends_its_lease(store: Client) -> None:
    with store.session(30) as session:
        store.put("mine", "1", lease=session.lease.id)
        session.check()
    assert store.get("mine") is None


def test_lost_session_is_said_everywhere(store: Client, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()
    caplog.set_level(logging.ERROR)

    def lose() -> None:
        with store.session(2, on_lost=told.set) as session:
            store.find_lease(session.lease.id).revoke()  # as somebody else would
            until_set(session.lost)
            with pytest.raises(LeaseLostError):
                session.check()

    with pytest.raises(LeaseLostError):
        lose()
    assert told.is_set()
    assert any("is lost" in record.message for record in caplog.records)


def test_servers_that_fall_silent_cost_the_session_before_its_ttl_is_over(
    make_client: Maker, private_etcd: EtcdCluster
) -> None:
    client = make_client(private_etcd.endpoints, timeout=0.5)

    def lose() -> None:
        with client.session(2) as session:
            for number in range(3):
                private_etcd.signal(number, signal.SIGSTOP)
            until_set(session.lost)

    with pytest.raises(LeaseLostError):
        lose()


def test_session_survives_the_death_of_the_member_it_talks_to(
    make_client: Maker, private_etcd: EtcdCluster
) -> None:
    # If it led, the others elect a new leader first, which takes a busy machine seconds.
    client = make_client(private_etcd.endpoints)
    with client.session(6) as session:
        private_etcd.signal(0, signal.SIGKILL)
        time.sleep(7)
        session.check()


def test_losing_a_session_cancels_the_task_inside_and_only_there(etcd: EtcdCluster) -> None:
    async def lose(client: AsyncClient) -> None:
        async with client.session(2) as session:
            await (await client.find_lease(session.lease.id)).revoke()
            await asyncio.sleep(30)

    async def main() -> None:
        async with AsyncClient(etcd.endpoints) as client:
            with pytest.raises(LeaseLostError):
                await lose(client)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_task_that_is_cancelled_from_outside_stays_cancelled(etcd: EtcdCluster) -> None:
    async def inside(client: AsyncClient, entered: asyncio.Event) -> None:
        async with client.session(30):
            entered.set()
            await asyncio.sleep(30)

    async def main() -> None:
        async with AsyncClient(etcd.endpoints) as client:
            entered = asyncio.Event()
            task = asyncio.create_task(inside(client, entered))
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
