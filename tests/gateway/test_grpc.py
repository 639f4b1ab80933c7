"""gRPC as Python's own grpcio sees it."""

from __future__ import annotations

import asyncio
import threading

import grpc
import grpc.aio
import pytest

from etcray.gateway.framing import parse_timeout
from etcray_storage import limits
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import KV, call, put, refusal, server_stream, unary
from tests.gateway.local_member import CLUSTER_ID, MEMBER_ID
from tests.gateway.serving import ServingGateway, until


def test_put_and_range_answer_with_a_full_header(shared_gateway: ServingGateway) -> None:
    header = put(shared_gateway, "header").header
    assert (header.cluster_id, header.member_id, header.raft_term) == (CLUSTER_ID, MEMBER_ID, 7)
    got = rpc.RangeResponse.FromString(
        call(shared_gateway, KV + "Range", rpc.RangeRequest(key=b"header").SerializeToString())
    )
    assert got.kvs[0].mod_revision == header.revision == got.header.revision


def test_error_of_the_store_keeps_code_and_text(shared_gateway: ServingGateway) -> None:
    assert refusal(shared_gateway, KV + "Put", b"") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "etcdserver: key is not provided",
    )
    future = rpc.RangeRequest(key=b"a", revision=10**9).SerializeToString()
    assert refusal(shared_gateway, KV + "Range", future) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )


def test_unknown_methods_are_unimplemented_in_grpc_go_words(shared_gateway: ServingGateway) -> None:
    unimplemented = grpc.StatusCode.UNIMPLEMENTED
    assert refusal(shared_gateway, KV + "Nothing", b"") == (
        unimplemented,
        "unknown method Nothing for service etcdserverpb.KV",
    )
    assert refusal(shared_gateway, "/no.Such/Method", b"") == (unimplemented, "unknown service no.Such")
    assert refusal(shared_gateway, "/etcdserverpb.Auth/AuthEnable", b"")[0] == unimplemented


def test_malformed_protobuf_is_an_internal_error(shared_gateway: ServingGateway) -> None:
    code, text = refusal(shared_gateway, KV + "Put", b"\xff\xff\xff")
    assert code == grpc.StatusCode.INTERNAL
    assert text.startswith("grpc: error unmarshalling request: ")


def test_request_between_the_two_limits_is_too_large_for_etcd(shared_gateway: ServingGateway) -> None:
    request = rpc.PutRequest(key=b"big", value=b"x" * limits.REQUEST_BYTES_MAX).SerializeToString()
    assert refusal(shared_gateway, KV + "Put", request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "etcdserver: request is too large",
    )


def test_request_over_the_message_limit_is_refused_by_the_transport(shared_gateway: ServingGateway) -> None:
    size = limits.GRPC_RECEIVE_BYTES_MAX + 1
    code, text = refusal(shared_gateway, KV + "Put", b"\0" * size)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == f"grpc: received message larger than max ({size} vs. {limits.GRPC_RECEIVE_BYTES_MAX})"


def test_largest_request_is_taken_and_a_large_answer_arrives_whole(shared_gateway: ServingGateway) -> None:
    around = rpc.PutRequest(key=b"large/0", value=b"x" * limits.REQUEST_BYTES_MAX).ByteSize()
    value = b"x" * (2 * limits.REQUEST_BYTES_MAX - around)
    for number in range(10):
        request = rpc.PutRequest(key=b"large/%d" % number, value=value).SerializeToString()
        assert len(request) == limits.REQUEST_BYTES_MAX
        call(shared_gateway, KV + "Put", request)
    request = rpc.RangeRequest(key=b"large/", range_end=b"large0").SerializeToString()
    response = rpc.RangeResponse.FromString(call(shared_gateway, KV + "Range", request))
    assert [len(pair.value) for pair in response.kvs] == [len(value)] * 10


def test_gzip_requests_are_understood(shared_gateway: ServingGateway) -> None:
    request = rpc.PutRequest(key=b"gzip", value=b"z" * 1000).SerializeToString()
    response = call(shared_gateway, KV + "Put", request, compression=grpc.Compression.Gzip)
    assert rpc.PutResponse.FromString(response).header.revision > 1


def test_deadline_passes_while_the_cluster_is_silent(gateway: ServingGateway) -> None:
    gateway.member.silent = True
    with grpc.insecure_channel(gateway.address) as channel:
        method = unary(channel, KV + "Put")
        with pytest.raises(grpc.RpcError) as caught:
            method(rpc.PutRequest(key=b"a").SerializeToString(), timeout=0.1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_call_without_a_leader_is_refused_when_it_asks_for_one(gateway: ServingGateway) -> None:
    gateway.member.leaderless = True
    request = rpc.RangeRequest(key=b"a", serializable=True).SerializeToString()
    assert rpc.RangeResponse.FromString(call(gateway, KV + "Range", request)).header.revision == 1
    assert refusal(gateway, KV + "Range", request, metadata=[("hasleader", "true")]) == (
        grpc.StatusCode.UNAVAILABLE,
        "etcdserver: no leader",
    )


def test_write_waits_for_a_leader_and_succeeds(gateway: ServingGateway) -> None:
    gateway.member.leaderless = True

    def elect() -> None:
        gateway.member.leaderless = False

    timer = threading.Timer(0.4, elect)
    timer.start()
    try:
        assert put(gateway, "patient").header.revision == 2
    finally:
        timer.join()


def test_cancelled_write_leaves_nothing_behind(gateway: ServingGateway) -> None:
    gateway.member.busy = True
    with grpc.insecure_channel(gateway.address) as channel:
        future = unary(channel, KV + "Put").future(rpc.PutRequest(key=b"gone").SerializeToString())
        until(lambda: gateway.call(lambda: gateway.server.dispatcher.proposals.pending_count) == 1)
        future.cancel()
        gateway.member.busy = False
        until(lambda: gateway.call(lambda: gateway.server.dispatcher.proposals.pending_count) == 0)
    assert gateway.member.machine.revision == 2, "what was submitted may be applied; its answer is dropped"


def test_many_calls_of_one_moment_share_batches(gateway: ServingGateway) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            method = unary(channel, KV + "Put")
            requests = [rpc.PutRequest(key=b"%d" % n).SerializeToString() for n in range(500)]
            responses = await asyncio.gather(*(method(request, timeout=10) for request in requests))
        revisions = {rpc.PutResponse.FromString(response).header.revision for response in responses}
        assert revisions == set(range(2, 502))

    asyncio.run(run())
    counters = gateway.call(gateway.server.counters)
    assert counters.commands == 500
    assert counters.command_batches < 250


def test_range_stream_pages_merge_to_the_range_of_one_revision(shared_gateway: ServingGateway) -> None:
    for number in range(95):
        put(shared_gateway, f"page/{number:03}", b"v" * number)
    request = rpc.RangeRequest(key=b"page/", range_end=b"page0")
    whole = rpc.RangeResponse.FromString(call(shared_gateway, KV + "Range", request.SerializeToString()))
    with grpc.insecure_channel(shared_gateway.address) as channel:
        stream = server_stream(channel, KV + "RangeStream")
        for limit in (0, 1, 10, 30, 31, 95, 200):
            request.limit = limit
            pages = [
                rpc.RangeStreamResponse.FromString(page).range_response
                for page in stream(request.SerializeToString(), timeout=10)
            ]
            assert not any(page.HasField("header") or page.count or page.more for page in pages[:-1])
            keys = [pair.key for page in pages for pair in page.kvs]
            assert keys == [pair.key for pair in whole.kvs][: limit or None]
            assert pages[-1].count == 95
            assert pages[-1].more == (0 < limit < 95)
            assert pages[-1].header.revision == whole.header.revision
    assert [len(page.kvs) for page in pages] == [10, 20, 40, 25]


def test_range_stream_refuses_what_it_cannot_page(shared_gateway: ServingGateway) -> None:
    sorted_range = rpc.RangeRequest(key=b"a", sort_target=rpc.RangeRequest.MOD)
    filtered = rpc.RangeRequest(key=b"a", min_mod_revision=3)
    with grpc.insecure_channel(shared_gateway.address) as channel:
        stream = server_stream(channel, KV + "RangeStream")
        for request, text in ((sorted_range, "custom sort orders"), (filtered, "revision filters")):
            with pytest.raises(grpc.RpcError) as caught:
                list(stream(request.SerializeToString(), timeout=10))
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.details() == f"RangeStream does not support {text}"


def test_health_service_serves_and_watches(shared_gateway: ServingGateway) -> None:
    assert call(shared_gateway, "/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
    code, _ = refusal(shared_gateway, "/grpc.health.v1.Health/Check", b"\x0a\x01x")
    assert code == grpc.StatusCode.NOT_FOUND
    with grpc.insecure_channel(shared_gateway.address) as channel:
        watch = server_stream(channel, "/grpc.health.v1.Health/Watch")(b"", timeout=10)
        assert next(watch) == b"\x08\x01"
        watch.cancel()


def test_timeouts_have_units() -> None:
    assert parse_timeout(None) is None
    assert parse_timeout(b"2S") == 2.0
    assert parse_timeout(b"1500m") == 1.5
    assert parse_timeout(b"1H") == 3600.0
    for malformed in (b"", b"5", b"S", b"-1S", b"1x", b"123456789S"):
        with pytest.raises(EtcdError, match="malformed grpc-timeout"):
            parse_timeout(malformed)
