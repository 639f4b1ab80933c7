"""Every workload on a real etcd and on a gateway of etcray: answered, and its data is there."""

from __future__ import annotations

import msgspec
import pytest

from etcray.client import Client
from etcray_bench.etcd import EtcdCluster
from etcray_bench.load import WORKLOADS, Load, LoadResult, Progress, run_load
from etcray_bench.load.workloads import YCSB_SHARES


def short_load(endpoint: str, workload: str, **options: object) -> Load:
    fields: dict[str, object] = {
        "endpoints": (endpoint,),
        "workload": workload,
        "clients": 8,
        "connections": 3,
        "seconds": 0.3,
        "warmup_seconds": 0.1,
        "keys": 200,
        "prefix": "load/",
        "watchers": 5 if workload == "watch" else 0,
    }
    return Load(**{**fields, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_is_answered_and_its_data_is_there(server: str, workload: str) -> None:
    result = run_load(short_load(server, workload))
    assert result.failures == {}
    assert result.operations > 0
    assert result.checked.keys + result.checked.leases > 0
    assert 0 < result.latency.p50_ms <= result.latency.p99_ms <= result.latency.max_ms
    assert sum(result.series.completions) == result.operations


@pytest.mark.parametrize("workload", ["put", "range", "txn", "mixed", "ycsb-e", "kubernetes"])
def test_an_open_loop_begins_operations_at_its_rate(server: str, workload: str) -> None:
    result = run_load(short_load(server, workload, rate=100.0, seconds=1.0))
    # By the schedule, whatever the machine is busy with: each of them is in the distribution.
    assert 60 <= result.latency.count <= 150
    assert result.service_time.count + result.unstarted == result.latency.count
    assert result.failures == {}


def test_an_open_loop_of_fixed_distances_has_as_many_operations_as_the_rate_says(server: str) -> None:
    result = run_load(short_load(server, "range", rate=200.0, arrivals="fixed", seconds=0.5))
    assert abs(result.latency.count - 200.0 * result.seconds) <= 1


@pytest.mark.parametrize("workload", ["put", "kubernetes", "ycsb-d", "lease"])
def test_several_processes_are_one_load(server: str, workload: str) -> None:
    edges: list[str] = []
    reports: list[Progress] = []
    load = short_load(server, workload, processes=2, seconds=0.6)
    result = run_load(load, lambda: edges.append("edge"), reports.append)
    assert (result.failures, len(edges)) == ({}, 2)
    assert result.operations > 0
    assert result.checked.keys + result.checked.leases > 0
    assert reports[-1].phase == "check"
    assert "run" in {report.phase for report in reports}


def test_values_of_many_sizes_and_long_keys_arrive_whole(server: str) -> None:
    load = short_load(server, "mixed", value_bytes=20, value_bytes_max=30_000, key_bytes=100)
    result = run_load(load)
    assert (result.failures, result.checked.keys) == ({}, 200)
    with Client(server) as client:
        pairs = client.get_prefix("load/").kvs
    assert {len(pair.key) for pair in pairs} == {100}
    assert len({len(pair.value) for pair in pairs}) > 10


@pytest.mark.parametrize("distribution", ["sequential", "uniform", "zipfian"])
def test_keys_come_as_wanted(etcd: EtcdCluster, distribution: str) -> None:
    load = short_load(etcd.endpoints[0], "put", distribution=distribution, keys=1000)
    result = run_load(load)
    with Client(etcd.endpoints) as client:
        versions = sorted((pair.version for pair in client.get_prefix("load/").kvs), reverse=True)
    assert sum(versions) == result.checked.puts
    if distribution == "sequential" and result.checked.puts <= 1000:
        # Each client goes round all keys in its own steps, and none has come round.
        assert versions[0] == 1
    if distribution == "zipfian":
        # The most popular key of a thousand has a share of 13 %; with even shares it would have 0.1 %.
        assert versions[0] > 0.05 * sum(versions)


@pytest.mark.parametrize("workload", YCSB_SHARES)
def test_ycsb_has_the_shares_of_its_definition(etcd: EtcdCluster, workload: str) -> None:
    result = run_load(short_load(etcd.endpoints[0], workload))
    counts = {name: each.count for name, each in result.by_operation.items()}
    assert counts.keys() <= YCSB_SHARES[workload].keys()
    total = sum(counts.values())
    for name, share in YCSB_SHARES[workload].items():
        # Four standard deviations of a share among so many.
        assert abs(counts.get(name, 0) / total - share) <= 4 * (share * (1 - share) / total) ** 0.5 + 0.01


def test_ranges_have_as_many_keys_as_wanted(server: str) -> None:
    for workload in ("range", "serializable-range"):
        assert run_load(short_load(server, workload, keys_per_range=50)).failures == {}


def test_a_load_can_be_repeated_and_a_result_stored(etcd: EtcdCluster) -> None:
    result = run_load(short_load(etcd.endpoints[0], "mixed"))
    again = msgspec.json.decode(msgspec.json.encode(result), type=LoadResult)
    assert again == result
    assert again.latency.percentile_ms(99) == result.latency.p99_ms


def test_leases_of_a_run_do_not_outlive_it(etcd: EtcdCluster) -> None:
    with Client(etcd.endpoints) as client:
        before = set(client.leases())
        result = run_load(short_load(etcd.endpoints[0], "lease-grant"))
        assert result.checked.leases > 0
        assert set(client.leases()) == before


def test_a_load_of_leases_can_be_run_again_with_the_same_seed(server: str) -> None:
    for _ in range(2):
        assert run_load(short_load(server, "lease-grant")).failures == {}
