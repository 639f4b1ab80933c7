"""The lock service: one holder at a time, in order, and nobody waits in the place of a client that left."""

from __future__ import annotations

import json
import random
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import grpc
import pytest

from etcray_storage import limits
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import lock_pb2 as lock
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import KV, call, refusal, unary
from tests.gateway.json_calls import b64, post
from tests.gateway.serving import ServingGateway, until
from tests.gateway.test_lease import grant, time_to_live

LOCK = "/v3lockpb.Lock/"


def lock_request(name: bytes, lease: int) -> bytes:
    return lock.LockRequest(name=name, lease=lease).SerializeToString()


def acquire(gateway: ServingGateway, name: bytes, lease: int) -> lock.LockResponse:
    return lock.LockResponse.FromString(call(gateway, LOCK + "Lock", lock_request(name, lease)))


def release(gateway: ServingGateway, key: bytes) -> lock.UnlockResponse:
    request = lock.UnlockRequest(key=key).SerializeToString()
    return lock.UnlockResponse.FromString(call(gateway, LOCK + "Unlock", request))


def line(gateway: ServingGateway, name: bytes) -> list[kv.KeyValue]:
    """The keys of a lock, oldest first."""
    request = rpc.RangeRequest(
        key=name + b"/",
        range_end=name + b"0",
        sort_order=rpc.RangeRequest.ASCEND,
        sort_target=rpc.RangeRequest.CREATE,
    )
    return list(rpc.RangeResponse.FromString(call(gateway, KV + "Range", request.SerializeToString())).kvs)


class Waiter:
    """One lock call that is under way."""

    def __init__(self, gateway: ServingGateway, name: bytes, lease: int, seconds: float = 20.0) -> None:
        self._channel = grpc.insecure_channel(gateway.address)
        method = unary(self._channel, LOCK + "Lock")
        self.call: Any = method.future(lock_request(name, lease), timeout=seconds)

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()
        self._channel.close()

    def wait(self) -> lock.LockResponse:
        return lock.LockResponse.FromString(self.call.result())

    def failure(self) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.call.result()
        return caught.value.code(), caught.value.details() or ""


def test_lock_is_a_key_of_the_lease(gateway: ServingGateway) -> None:
    grant(gateway, 60, 0x1E61)
    got = acquire(gateway, b"door", 0x1E61)
    assert got.key == b"door/1e61"
    (pair,) = line(gateway, b"door")
    assert (pair.key, pair.value, pair.lease) == (got.key, b"", 0x1E61)
    assert got.header.revision == pair.create_revision
    assert acquire(gateway, b"door", 0x1E61).key == got.key, "the same lease again: held already"
    assert release(gateway, got.key).header.revision == pair.create_revision + 1
    assert release(gateway, got.key).header.revision == pair.create_revision + 1, "unlocked already"
    assert line(gateway, b"door") == []


def test_caller_without_a_lease_gets_one_that_ends(gateway: ServingGateway) -> None:
    acquire(gateway, b"door", 0)
    (pair,) = line(gateway, b"door")
    assert time_to_live(gateway, pair.lease).grantedTTL == limits.LOCK_LEASE_SECONDS


def test_lease_that_does_not_exist_is_refused_as_etcd_does(gateway: ServingGateway) -> None:
    assert refusal(gateway, LOCK + "Lock", lock_request(b"door", 4711)) == (
        grpc.StatusCode.UNKNOWN,
        "etcdserver: requested lease not found",
    )


def test_waiters_get_the_lock_in_the_order_of_their_keys(gateway: ServingGateway) -> None:
    for lease in range(1, 6):
        grant(gateway, 60, lease)
    key = acquire(gateway, b"door", 1).key
    waiters = {}
    for lease in range(2, 6):
        waiters[lease] = Waiter(gateway, b"door", lease)
        until(lambda: len(line(gateway, b"door")) == len(waiters) + 1)
    for lease, waiter in waiters.items():
        assert not any(
            other.call.done() for other in waiters.values() if other is not waiter and other.call.running()
        )
        release(gateway, key)
        with waiter:
            key = waiter.wait().key
            assert key == b"door/%x" % lease
            assert line(gateway, b"door")[0].key == key


def test_one_client_at_a_time_holds_the_lock(gateway: ServingGateway) -> None:
    """Each holds it from the revision of its answer to that of its unlock; no two spans overlap."""
    clients, rounds = 6, 8
    inside = 0
    spans: list[tuple[int, int]] = []

    def client(number: int) -> None:
        nonlocal inside
        lease = number + 1
        rng = random.Random(number)
        with grpc.insecure_channel(gateway.address) as channel:
            for _ in range(rounds):
                held = lock.LockResponse.FromString(unary(channel, LOCK + "Lock")(lock_request(b"x", lease)))
                assert inside == 0
                inside += 1
                for _ in range(rng.randrange(3)):
                    unary(channel, KV + "Put")(rpc.PutRequest(key=b"noise").SerializeToString())
                inside -= 1
                request = lock.UnlockRequest(key=held.key).SerializeToString()
                freed = lock.UnlockResponse.FromString(unary(channel, LOCK + "Unlock")(request))
                spans.append((held.header.revision, freed.header.revision))

    for number in range(clients):
        grant(gateway, 60, number + 1)
    with ThreadPoolExecutor(clients) as pool:
        done: list[Future[None]] = [pool.submit(client, number) for number in range(clients)]
        for future in done:
            future.result(60)
    spans.sort()
    assert len(spans) == clients * rounds
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert line(gateway, b"x") == []


def test_holder_s_end_of_lease_is_the_next_one_s_turn(gateway: ServingGateway) -> None:
    for lease in (1, 2):
        grant(gateway, 60, lease)
    acquire(gateway, b"door", 1)
    with Waiter(gateway, b"door", 2) as waiter:
        until(lambda: len(line(gateway, b"door")) == 2)
        gateway.call(lambda: gateway.member.expire(1))
        assert waiter.wait().key == b"door/2"


def test_waiter_whose_lease_ended_is_told_so(gateway: ServingGateway) -> None:
    for lease in (1, 2):
        grant(gateway, 60, lease)
    held = acquire(gateway, b"door", 1)
    with Waiter(gateway, b"door", 2) as waiter:
        until(lambda: len(line(gateway, b"door")) == 2)
        gateway.call(lambda: gateway.member.expire(2))
        release(gateway, held.key)
        assert waiter.failure() == (grpc.StatusCode.UNKNOWN, "mutex: session is expired")


def test_waiter_wakes_though_history_was_compacted(gateway: ServingGateway) -> None:
    for lease in (1, 2):
        grant(gateway, 60, lease)
    held = acquire(gateway, b"door", 1)
    with Waiter(gateway, b"door", 2) as waiter:
        until(lambda: len(line(gateway, b"door")) == 2)
        revision = release(gateway, held.key).header.revision
        call(gateway, KV + "Compact", rpc.CompactionRequest(revision=revision).SerializeToString())
        assert waiter.wait().key == b"door/2"


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_waiter_that_leaves_gives_up_its_place(gateway: ServingGateway, way: str) -> None:
    for lease in (1, 2, 3):
        grant(gateway, 60, lease)
    held = acquire(gateway, b"door", 1)
    seconds = 0.5 if way == "deadline" else 20.0
    with Waiter(gateway, b"door", 2, seconds) as gone, Waiter(gateway, b"door", 3) as next_one:
        until(lambda: len(line(gateway, b"door")) == 3 or gone.call.done())
        if way == "cancel":
            gone.call.cancel()
        until(lambda: [pair.lease for pair in line(gateway, b"door")] == [1, 3])
        release(gateway, held.key)
        assert next_one.wait().key == b"door/3"


def test_waiter_that_hangs_up_over_http_gives_up_its_place(gateway: ServingGateway) -> None:
    for lease in (1, 2):
        grant(gateway, 60, lease)
    acquire(gateway, b"door", 1)
    body = json.dumps({"name": b64(b"door"), "lease": 2}).encode()
    head = f"POST /v3/lock/lock HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode() + body)
        until(lambda: len(line(gateway, b"door")) == 2)
    until(lambda: [pair.lease for pair in line(gateway, b"door")] == [1])


def test_client_that_leaves_before_its_key_is_there_leaves_no_key(gateway: ServingGateway) -> None:
    for lease in (1, 2):
        grant(gateway, 60, lease)
    acquire(gateway, b"door", 1)
    gateway.call(lambda: setattr(gateway.member, "busy", True))
    with Waiter(gateway, b"door", 2) as waiter:
        arrived = len(gateway.member.proposals)
        until(lambda: len(gateway.member.proposals) > arrived)
        waiter.call.cancel()
    gateway.call(lambda: setattr(gateway.member, "busy", False))
    revision = post(gateway.address, "kv/put", {"key": b64(b"noise")}).fields["header"]["revision"]
    until(lambda: len(line(gateway, b"door")) == 1 and current_revision(gateway) >= int(revision) + 1)


def current_revision(gateway: ServingGateway) -> int:
    return gateway.call(lambda: gateway.member.machine.revision)


def test_holder_that_leaves_a_second_call_keeps_its_lock(gateway: ServingGateway) -> None:
    grant(gateway, 60, 1)
    held = acquire(gateway, b"door", 1)
    gateway.call(lambda: setattr(gateway.member, "busy", True))
    with Waiter(gateway, b"door", 1) as again:
        arrived = len(gateway.member.proposals)
        until(lambda: len(gateway.member.proposals) > arrived)
        again.call.cancel()
    gateway.call(lambda: setattr(gateway.member, "busy", False))
    post(gateway.address, "kv/put", {"key": b64(b"noise")})
    assert [pair.key for pair in line(gateway, b"door")] == [held.key]
