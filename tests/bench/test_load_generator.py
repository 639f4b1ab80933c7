"""The benchmarks' generator: what it sends is understood, and what it reports is true."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from etcray.client import Client
from etcray_bench.load.closed_loop import (
    CheckFailedError,
    Generator,
    Load,
    check,
    percentiles,
    prepare,
    run_load,
)
from etcray_bench.load.workloads import WORKLOADS, KeySpace, Workload, WorkloadName
from etcray_storage.proto import rpc_pb2


def short_load(endpoint: str, workload: WorkloadName, value_bytes: int = 256, seconds: float = 0.2) -> Load:
    return Load(
        endpoints=[endpoint],
        workload=workload,
        clients=16,
        connections=3,
        seconds=seconds,
        warmup_seconds=0.05,
        value_bytes=value_bytes,
        keys=100,
        prefix=b"load/",
    )


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_is_answered_and_its_data_is_there(server: str, workload: WorkloadName) -> None:
    result = run_load(short_load(server, workload, seconds=1.5))  # a busy machine answers late
    assert (result.failures, result.first_failure) == (0, None)
    assert result.requests > 0
    assert result.keys_checked > 0
    assert result.latency_ms["p50"] <= result.latency_ms["max"]


def test_values_larger_than_a_frame_arrive_whole(server: str) -> None:
    result = run_load(short_load(server, "put", value_bytes=30_000))
    assert (result.failures, result.keys_checked > 0) == (0, True)


def test_a_lost_write_fails_the_check(server: str) -> None:
    load = short_load(server, "put")

    async def run() -> Generator:
        generator = Generator(load, lambda: None)
        prepare(load, generator.space)
        await generator.run()
        return generator

    generator = asyncio.run(run())
    assert check(load, generator) == 96  # 6 keys for each of the 16 clients
    with Client(server) as client:
        client.put("load/00000003", "another value")
        with pytest.raises(CheckFailedError, match="was acknowledged as"):
            check(load, generator)
        client.delete("load/00000003")
    with pytest.raises(CheckFailedError, match="96 keys were written, the store counts 95"):
        check(load, generator)


def test_answers_without_the_pair_are_failures(server: str) -> None:
    load = short_load(server, "range")

    async def run() -> Generator:
        generator = Generator(load, lambda: None)
        with Client(server) as client:
            client.delete(load.prefix, prefix=True)
        await generator.run()
        return generator

    generator = asyncio.run(run())
    assert all(client.failures > 0 for client in generator.clients)


def test_messages_are_what_protobuf_would_have_made() -> None:
    space = KeySpace(b"p%/", 10, 2, 300)
    value = space.value(1, 7, space.filler())
    key = space.key(1, 7)
    assert key == b"p%/00000005"
    put = rpc_pb2.PutRequest(key=key, value=value)
    assert rpc_pb2.PutRequest.FromString(Workload("put", space).message(1, 7)) == put
    read = rpc_pb2.RangeRequest.FromString(Workload("serializable-range", space).message(1, 7))
    assert read == rpc_pb2.RangeRequest(key=key, serializable=True)
    txn = rpc_pb2.TxnRequest.FromString(Workload("txn", space).message(1, 7))
    assert (txn.compare[0].key, txn.success[0].request_put) == (key, put)
    assert txn.success[1].request_range == rpc_pb2.RangeRequest(key=key)


def test_each_key_is_expected_to_hold_its_owners_last_write() -> None:
    space = KeySpace(b"", 6, 2, 20)
    assert [key for key, _ in space.last_writes(1, 2)] == [b"00000001", b"00000003"]
    expected = dict(space.last_writes(1, 4))
    assert expected == {
        b"00000003": b"00000001.0000000001.",
        b"00000005": b"00000001.0000000002.",
        b"00000001": b"00000001.0000000003.",
    }


def test_percentiles_are_exact() -> None:
    found = percentiles(array("d", [number / 1000 for number in range(1000, 0, -1)]))
    assert found == {"p50": 501.0, "p90": 901.0, "p99": 991.0, "p99.9": 1000.0, "max": 1000.0}
    assert percentiles(array("d")) == {}
