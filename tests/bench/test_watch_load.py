"""The benchmarks' watchers: what they count is what was delivered, and what is wrong is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from etcray_bench.load import CheckFailedError, Load, run_load, watch_decoding
from etcray_bench.load.keys import Values
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.watch_idle import run_idle
from etcray_bench.load.watch_load import Delivery, StreamReader
from etcray_storage.proto import kv_pb2, rpc_pb2


def response(watch_id: int, *events: tuple[int, bytes, bytes]) -> bytes:
    return rpc_pb2.WatchResponse(
        header=rpc_pb2.ResponseHeader(cluster_id=2**63, member_id=5, revision=9, raft_term=2),
        watch_id=watch_id,
        events=[
            kv_pb2.Event(kv=kv_pb2.KeyValue(key=key, value=value, mod_revision=revision))
            for revision, key, value in events
        ],
    ).SerializeToString()


@pytest.mark.parametrize("watchers_per_stream", [1, 7])
def test_every_watcher_gets_every_event(server: str, watchers_per_stream: int) -> None:
    load = Load(
        endpoints=(server,),
        workload="watch",
        watchers=20,
        clients=3,
        watchers_per_stream=watchers_per_stream,
        connections=2,
        seconds=0.3,
        warmup_seconds=0.1,
        keys=10,
        prefix="watch-load/",
    )
    result = run_load(load)
    assert result.operations > 0
    assert result.checked.events >= result.operations
    assert result.checked.events == 20 * result.checked.puts
    assert result.by_operation.keys() == {"delivery", "put"}
    assert result.latency == result.by_operation["delivery"].latency
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p99"]


def test_idle_watchers_are_all_there_and_told_of_their_key_only(server: str) -> None:
    measured = iter([{"all": 1_000}, {"all": 5_000}])
    result = run_idle([server], 700, 3, lambda: next(measured))
    assert (result.watchers, result.events_checked) == (700, 50)
    assert (result.bytes_before, result.bytes_after) == ({"all": 1_000}, {"all": 5_000})


@pytest.mark.parametrize("watch_id", [0, 1, 127, 128, 16_383, 16_384, 2**40])
def test_a_response_is_cut_behind_its_watch_id(watch_id: int) -> None:
    events = [(7, b"k", b"v"), (8, b"k", b"w")]
    found, tail = watch_decoding.split(response(watch_id, *events))
    assert (found, watch_decoding.has_events(tail)) == (watch_id, True)
    assert watch_decoding.decode(tail) == events
    assert watch_decoding.split(response(watch_id)) == (watch_id, b"")


def test_what_is_no_event_is_told_apart() -> None:
    created = rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(revision=3), watch_id=4, created=True)
    watch_id, tail = watch_decoding.split(created.SerializeToString())
    assert (watch_id, watch_decoding.has_events(tail)) == (4, False)
    assert rpc_pb2.WatchResponse.FromString(tail).created


def with_one_put_under_way(check: Callable[[StreamReader, bytes, bytes], None]) -> None:
    """Two watchers at revision 10 of one writer that has sent its first put."""

    async def run() -> None:
        load = Load(endpoints=("127.0.0.1:1",), workload="watch", watchers=2, clients=1, value_bytes=30)
        delivery = Delivery(load, Ledger(load.keys), 10)
        writer = delivery.writers[0]
        writer.sequence, writer.missing = 1, 3
        check(StreamReader(delivery, 2, 10), b"bench/00000000", Values(load).value(0, 0, 30))

    asyncio.run(run())


def test_an_event_counts_once_for_each_watcher() -> None:
    def check(reader: StreamReader, key: bytes, value: bytes) -> None:
        for watch_id in (1, 0):
            reader.received(response(watch_id, (11, key, value)), 1.0)
        assert reader.positions == [11, 11]
        assert next(iter(reader._delivery.batches.values())).writers[0].missing == 1  # the answer

    with_one_put_under_way(check)


@pytest.mark.parametrize("revision", [10, 12])
def test_a_repeated_event_and_a_gap_fail_the_check(revision: int) -> None:
    def check(reader: StreamReader, key: bytes, value: bytes) -> None:
        with pytest.raises(CheckFailedError, match=f"has got up to 10, and now {revision}"):
            reader.received(response(0, (revision, key, value)), 1.0)

    with_one_put_under_way(check)


def test_an_altered_event_fails_the_check() -> None:
    def check(reader: StreamReader, key: bytes, value: bytes) -> None:
        later = value[:19] + b"1" + value[20:]
        with pytest.raises(CheckFailedError, match=r"put 1 of writer 0 is not expected"):
            reader.received(response(0, (11, key, later)), 1.0)
        with pytest.raises(CheckFailedError, match="is not expected"):
            reader.received(response(0, (11, key, value), (13, key, value)), 1.0)
        with pytest.raises(CheckFailedError, match="29 bytes that nobody wrote"):
            reader.received(response(0, (11, key, value[:-1])), 1.0)
        with pytest.raises(CheckFailedError, match="other"):
            reader.received(response(0, (11, b"other", value)), 1.0)

    with_one_put_under_way(check)
