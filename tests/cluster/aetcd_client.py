"""Exercises `aetcd` at the host and port given, prints the name of each check that passed.

A program, not a test module: aetcd and etcray cannot share a process (see test_client_libraries.py).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aetcd
import pytest


async def check_kv(client: Any) -> None:
    assert (await client.put(b"a", b"1")).prev_kv is None
    first = await client.get(b"a")
    assert (first.value, first.version) == (b"1", 1)
    assert (await client.put(b"a", b"2", prev_kv=True)).prev_kv.value == b"1"
    await client.put(b"ab", b"3")
    await client.put(b"b", b"4")
    assert await client.get(b"nothing") is None
    assert [pair.key for pair in await client.get_prefix(b"a")] == [b"a", b"ab"]
    assert [pair.value for pair in await client.get_range(b"ab", b"c")] == [b"3", b"4"]
    assert await client.replace(b"a", b"2", b"5")
    assert not await client.replace(b"a", b"2", b"6")
    assert (await client.delete(b"a", prev_kv=True)).prev_kv.value == b"5"
    assert (await client.delete_prefix(b"a")).deleted == 1
    assert (await client.get_all()).count == 1
    await client.compact(first.header.revision)


async def check_transaction(client: Any) -> None:
    operations = client.transactions
    await client.put(b"t", b"old")
    for value in (b"new", None):
        succeeded, answers = await client.transaction(
            compare=[operations.value(b"t") == b"old", operations.version(b"t") > 0],
            success=[operations.put(b"t", b"new"), operations.get(b"t")],
            failure=[operations.get(b"t"), operations.delete(b"t")],
        )
        assert succeeded is (value is not None)
        (pairs,) = [answer for answer in answers if isinstance(answer, list)]
        assert [each for each, _ in pairs] == [b"new"]
    assert await client.get(b"t") is None


async def check_watch(client: Any) -> None:
    start = (await client.put(b"w/0", b"0")).header.revision
    live = await client.watch_prefix(b"w/", prev_kv=True)
    past = await client.watch_prefix(b"w/", start_revision=start)
    await client.put(b"w/1", b"1")
    await client.put(b"w/1", b"2")
    await client.delete(b"w/1")
    events = await taken(live, 3)
    assert [(str(event.kind), event.kv.value) for event in events] == [
        ("PUT", b"1"),
        ("PUT", b"2"),
        ("DELETE", b""),
    ]
    assert [event.prev_kv.value for event in events[1:]] == [b"1", b"2"]
    assert [event.kv.value for event in await taken(past, 4)] == [b"0", b"1", b"2", b""]
    await client.compact(start + 2)
    with pytest.raises(aetcd.exceptions.RevisionCompactedError) as compacted:
        await taken(await client.watch(b"w/1", start_revision=start), 1)
    assert compacted.value.compacted_revision == start + 2
    with pytest.raises(aetcd.exceptions.WatchTimeoutError):
        await client.watch_once(b"w/never", timeout=1)


async def taken(watch: Any, count: int) -> list[Any]:
    """So many events; then the watch is cancelled."""
    events = []
    async for event in watch:
        events.append(event)
        if len(events) == count:
            await watch.cancel()
    return events


async def check_lease(client: Any) -> None:
    lease = await client.lease(60, lease_id=4711)
    assert (lease.id, lease.ttl) == (4711, 60)
    await client.put(b"leased", b"1", lease=lease)
    assert list(await lease.keys()) == [b"leased"]
    assert 0 < await lease.remaining_ttl() <= await lease.granted_ttl() == 60
    await lease.refresh()
    with pytest.raises(aetcd.exceptions.DuplicateLeaseError):
        await client.lease(60, lease_id=4711)
    await lease.revoke()
    assert await client.get(b"leased") is None
    await client.put(b"short", b"1", lease=await client.lease(2))
    while await client.get(b"short") is not None:
        await asyncio.sleep(0.1)


async def check_lock(client: Any) -> None:
    async with client.lock(b"door", ttl=20) as lock:
        assert await lock.is_acquired()
        other = client.lock(b"door", ttl=20)
        assert await other.acquire(timeout=0) is False
        waiting = asyncio.create_task(other.acquire(timeout=None))
        await lock.refresh()
    assert await waiting is True
    assert await other.release() is True


async def main(host: str, port: int) -> None:
    async with aetcd.Client(host=host, port=port) as client:
        for check in (check_kv, check_transaction, check_watch, check_lease, check_lock):
            await client.delete_range(b"\0", b"\0")
            await asyncio.wait_for(check(client), 60)
            print(check.__name__.removeprefix("check_"))
        await client.delete_range(b"\0", b"\0")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
