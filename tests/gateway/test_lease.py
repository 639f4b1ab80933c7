"""The lease service, over gRPC."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from etcray.gateway import leader_guard
from etcray_storage import limits
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import KV, call, refusal
from tests.gateway.serving import ServingGateway, until

LEASE = "/etcdserverpb.Lease/Lease"


def grant(gateway: ServingGateway, ttl: int = 60, lease: int = 0) -> rpc.LeaseGrantResponse:
    request = rpc.LeaseGrantRequest(TTL=ttl, ID=lease).SerializeToString()
    return rpc.LeaseGrantResponse.FromString(call(gateway, LEASE + "Grant", request))


def time_to_live(gateway: ServingGateway, lease: int) -> rpc.LeaseTimeToLiveResponse:
    request = rpc.LeaseTimeToLiveRequest(ID=lease, keys=True).SerializeToString()
    return rpc.LeaseTimeToLiveResponse.FromString(call(gateway, LEASE + "TimeToLive", request))


class KeepAliveStream:
    """One client's stream of renewals."""

    def __init__(self, gateway: ServingGateway, **metadata: str) -> None:
        self._channel: Any = grpc.insecure_channel(gateway.address)
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        method: Any = self._channel.stream_stream(LEASE + "KeepAlive", None, None)
        self.answers: Any = method(
            iter(self._requests.get, None), timeout=20, metadata=list(metadata.items())
        )

    def __enter__(self) -> KeepAliveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.cancel()
        self._requests.put(None)
        self._channel.close()

    def send(self, *leases: int) -> None:
        for lease in leases:
            self._requests.put(rpc.LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def send_raw(self, data: bytes) -> None:
        self._requests.put(data)

    def half_close(self) -> None:
        self._requests.put(None)

    def receive(self, count: int) -> list[tuple[int, int]]:
        answers = [rpc.LeaseKeepAliveResponse.FromString(next(self.answers)) for _ in range(count)]
        return [(answer.ID, answer.TTL) for answer in answers]

    def failure(self) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            next(self.answers)
        return caught.value.code(), caught.value.details() or ""


@pytest.fixture
def stream(gateway: ServingGateway) -> Iterator[KeepAliveStream]:
    with KeepAliveStream(gateway) as opened:
        yield opened


def test_lease_without_id_gets_a_positive_one_of_its_own(shared_gateway: ServingGateway) -> None:
    granted = [grant(shared_gateway).ID for _ in range(20)]
    assert len(set(granted)) == 20
    assert all(0 < lease < 1 << 63 for lease in granted)


def test_ids_and_short_lives_are_as_asked_or_raised(gateway: ServingGateway) -> None:
    assert (grant(gateway, 60, -5).ID, grant(gateway, 60, 5).TTL) == (-5, 60)
    assert grant(gateway, -100, 6).TTL == limits.LEASE_TTL_SECONDS_MIN
    request = rpc.LeaseGrantRequest(TTL=60, ID=5).SerializeToString()
    assert refusal(gateway, LEASE + "Grant", request) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: lease already exists",
    )


def test_too_long_a_life_is_refused_before_it_enters_the_log(gateway: ServingGateway) -> None:
    request = rpc.LeaseGrantRequest(TTL=limits.LEASE_TTL_SECONDS_MAX + 1).SerializeToString()
    assert refusal(gateway, LEASE + "Grant", request) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: too large lease TTL",
    )
    assert gateway.member.proposals == []


def test_revoke_deletes_the_keys_of_the_lease(gateway: ServingGateway) -> None:
    grant(gateway, 60, 5)
    for key in (b"a", b"b"):
        call(gateway, KV + "Put", rpc.PutRequest(key=key, lease=5).SerializeToString())
    assert list(time_to_live(gateway, 5).keys) == [b"a", b"b"]
    revoke = rpc.LeaseRevokeRequest(ID=5).SerializeToString()
    call(gateway, LEASE + "Revoke", revoke)
    got = call(gateway, KV + "Range", rpc.RangeRequest(key=b"a", range_end=b"c").SerializeToString())
    assert rpc.RangeResponse.FromString(got).count == 0
    assert refusal(gateway, LEASE + "Revoke", revoke) == (
        grpc.StatusCode.NOT_FOUND,
        "etcdserver: requested lease not found",
    )
    assert time_to_live(gateway, 5).TTL == -1


def test_all_leases_are_listed(gateway: ServingGateway) -> None:
    for lease in (5, 6):
        grant(gateway, 60, lease)
    listed = rpc.LeaseLeasesResponse.FromString(call(gateway, LEASE + "Leases", b""))
    assert sorted(lease.ID for lease in listed.leases) == [5, 6]


def test_renewals_are_answered_in_order_and_unknown_leases_with_zero(
    gateway: ServingGateway, stream: KeepAliveStream
) -> None:
    for lease in (5, 6):
        grant(gateway, 10 * lease, lease)
    stream.send(5, 4711, 6, 5)
    assert stream.receive(4) == [(5, 50), (4711, 0), (6, 60), (5, 50)]
    gateway.call(lambda: gateway.member.expire(5))
    stream.send(5)
    assert stream.receive(1) == [(5, 0)]


def test_renewals_of_one_stream_travel_together(gateway: ServingGateway, stream: KeepAliveStream) -> None:
    gateway.call(lambda: setattr(gateway.member, "busy", True))
    count = limits.KEEP_ALIVES_PER_STREAM_MAX
    stream.send(*range(1, count + 1))
    keep_alives = gateway.server.dispatcher.keep_alives
    until(lambda: gateway.call(lambda: keep_alives.pending_count) == count)
    gateway.call(lambda: setattr(gateway.member, "busy", False))
    assert stream.receive(count) == [(lease, 0) for lease in range(1, count + 1)]
    assert keep_alives.batch_count < count / 10


def test_client_s_end_is_the_stream_s_end_after_all_answers(
    gateway: ServingGateway, stream: KeepAliveStream
) -> None:
    stream.send(1, 2)
    stream.half_close()
    assert stream.receive(2) == [(1, 0), (2, 0)]
    with pytest.raises(StopIteration):
        next(stream.answers)


def test_malformed_renewal_ends_the_stream_behind_the_answers(
    gateway: ServingGateway, stream: KeepAliveStream
) -> None:
    stream.send(1)
    stream.send_raw(b"\xff")
    assert stream.receive(1) == [(1, 0)]
    assert stream.failure()[0] is grpc.StatusCode.INTERNAL


def test_stream_outlives_a_leader_change(gateway: ServingGateway, stream: KeepAliveStream) -> None:
    grant(gateway, 60, 5)
    gateway.call(lambda: setattr(gateway.member, "leaderless", True))
    stream.send(5)
    until(lambda: len(gateway.member.renewals) >= 1)
    gateway.call(lambda: setattr(gateway.member, "leaderless", False))
    assert stream.receive(1) == [(5, 60)]


def test_stream_that_asked_for_a_leader_ends_without_one(
    gateway: ServingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_guard, "INTERVAL_SECONDS", 0.01)
    with KeepAliveStream(gateway, hasleader="true") as guarded, KeepAliveStream(gateway) as other:
        for stream in (guarded, other):
            stream.send(1)
            assert stream.receive(1) == [(1, 0)]
        gateway.call(lambda: setattr(gateway.member, "leaderless", True))
        gateway.call(lambda: setattr(gateway.server.dispatcher, "_leader_confirmed_at", -1.0))
        guarded.send(1, 2)
        assert guarded.failure() == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        gateway.call(lambda: setattr(gateway.member, "leaderless", False))
        other.send(2)
        assert other.receive(1) == [(2, 0)]


def test_fast_client_is_not_read_from_without_bound(gateway: ServingGateway, stream: KeepAliveStream) -> None:
    gateway.call(lambda: setattr(gateway.member, "silent", True))
    stream.send(*range(1, 20_000))
    keep_alives = gateway.server.dispatcher.keep_alives
    until(lambda: gateway.call(lambda: keep_alives.pending_count) >= limits.KEEP_ALIVES_PER_STREAM_MAX)
    assert gateway.call(lambda: keep_alives.pending_count) <= limits.KEEP_ALIVES_PER_STREAM_MAX + 1
