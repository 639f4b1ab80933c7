"""A store that loses, alters or invents something is found out, and one that only failed to answer is not."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etcray.client import Client
from etcray_bench.etcd import EtcdCluster
from etcray_bench.load import CheckFailedError, Load, conclude, prepare, run_load, run_part
from etcray_bench.load.errors import RequestFailedError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.kubernetes import check_changes
from etcray_bench.load.ledger import NOTHING, Ledger
from etcray_bench.load.operations import Operations
from etcray_storage.proto import kv_pb2, rpc_pb2
from tests.bench.test_workloads import short_load

KEY = "load/00000003"


def delete(client: Client) -> None:
    client.delete(KEY)


def overwrite(client: Client) -> None:
    client.put(KEY, "another value")


def rewrite(client: Client) -> None:
    """What it holds already: only its revision and its count of writes tell."""
    pair = client.get(KEY)
    assert pair is not None
    client.put(KEY, pair.value)


def put_back(client: Client) -> None:
    """The value of another key."""
    pair = client.get("load/00000004")
    assert pair is not None
    client.put(KEY, pair.value)


def invent(client: Client) -> None:
    client.put("load/00009999", "nobody wrote this")


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (delete, "was written at revision"),
        (overwrite, "nobody wrote"),
        (rewrite, "was last written at revision"),
        (put_back, "nobody wrote"),
        (invent, "nobody wrote"),
    ],
)
@pytest.mark.parametrize("workload", ["put", "mixed"])
def test_what_happens_behind_the_loads_back_fails_the_check(
    server: str, workload: str, tamper: Callable[[Client], object], found: str
) -> None:
    load = short_load(server, workload, keys=20)
    prepared = prepare(load)
    part = run_part(load, prepared)
    assert conclude(load, prepared, [part]).checked.keys == 20
    with Client(server) as client:
        tamper(client)
    with pytest.raises(CheckFailedError, match=found):
        conclude(load, prepared, [part])


def test_a_lease_that_vanishes_fails_the_check(server: str) -> None:
    load = short_load(server, "lease-grant")
    prepared = prepare(load)
    part = run_part(load, prepared)
    with Client(server) as client:
        client.find_lease(part.ledger.leases[0]).revoke()
    with pytest.raises(CheckFailedError, match=r"1 of \d+ leases were granted, and are not there"):
        conclude(load, prepared, [part])


def test_a_lost_write_of_one_process_is_found_among_those_of_all(server: str) -> None:
    load = short_load(server, "put", keys=50)
    prepared = prepare(load)
    parts = [run_part(load, prepared, number, 2) for number in range(2)]
    assert conclude(load, prepared, parts).checked.keys == 50
    with pytest.raises(CheckFailedError):
        conclude(load, prepared, parts[:1])


# --- answers that must not be given ----------------------------------------------------------------


class Writer:
    number = 0
    sequence = 0


LOAD = Load(endpoints=("127.0.0.1:1",), keys=10, prefix="load/", value_bytes=30)


def operations() -> Operations:
    """Key 3 was put at revision 7."""
    ledger = Ledger(10)
    ledger.put(3, 7, 0)
    return Operations(KeySpace(b"load/"), Values(LOAD), ledger, random.Random(1))


def pair(revision: int, stamp: int = 0, key: int = 3, of: int = 3) -> kv_pb2.KeyValue:
    value = Values(LOAD).value(of, stamp, 30)
    return kv_pb2.KeyValue(key=b"load/%08d" % key, value=value, mod_revision=revision)


def range_answer(*pairs: kv_pb2.KeyValue) -> bytes:
    header = rpc_pb2.ResponseHeader(revision=9)
    return rpc_pb2.RangeResponse(header=header, kvs=pairs, count=len(pairs)).SerializeToString()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (range_answer(pair(6, 1)), "a later read found the one of 6"),
        (range_answer(), "a later read finds none"),
        (range_answer(pair(7, 1)), "two values at revision 7"),
        (range_answer(pair(8, 1, key=4)), "was answered with b'load/00000004'"),
        (range_answer(pair(8, 1, of=4)), "nobody wrote to it"),
    ],
)
def test_a_read_that_is_stale_or_of_something_else_is_found(answer: bytes, found: str) -> None:
    steps = operations().get(3)
    next(steps)
    with pytest.raises(CheckFailedError, match=found):
        steps.send(answer)


@pytest.mark.parametrize("answer", [range_answer(pair(7)), range_answer(pair(8, 1))])
def test_a_read_of_the_last_write_or_a_later_one_is_right(answer: bytes) -> None:
    steps = operations().get(3)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(answer)


def test_an_old_value_is_right_for_a_serializable_read() -> None:
    steps = operations().get(3, serializable=True)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(range_answer(pair(6, 1)))


def test_a_failed_compare_with_the_revision_that_is_there_is_found() -> None:
    steps = operations().compare_and_put(Writer(), 3)
    next(steps)
    lost = rpc_pb2.TxnResponse(
        responses=[rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse.FromString(range_answer(pair(7))))]
    )
    with pytest.raises(CheckFailedError, match="a compare with revision 7 of key 3 failed, and it has that"):
        steps.send(lost.SerializeToString())


def test_a_write_without_an_answer_may_have_happened_or_not() -> None:
    subject = operations()
    steps = subject.put(Writer(), 3)
    next(steps)
    with pytest.raises(RequestFailedError):
        steps.throw(RequestFailedError("no answer"))
    assert subject.ledger.unknown == {3: [0]}


def test_watchers_must_see_what_was_acknowledged_and_nothing_else() -> None:
    ledger = Ledger(10)
    ledger.changes = []
    ledger.put(1, 5, 10)
    ledger.delete(1, 6)
    ledger.in_doubt(2, 20)
    check_changes(ledger, [(5, 1, 10), (6, 1, NOTHING)])
    check_changes(ledger, [(5, 1, 10), (6, 1, NOTHING), (7, 2, 20)])
    check_changes(ledger, [(5, 1, 10)])
    with pytest.raises(CheckFailedError, match="missed 1 changes, one of revision 5"):
        check_changes(ledger, [(6, 1, NOTHING)])
    with pytest.raises(CheckFailedError, match="revision 7 for key 2 is of no known write"):
        check_changes(ledger, [(5, 1, 10), (6, 1, NOTHING), (7, 2, 21)])


# --- faults ------------------------------------------------------------------------------------------


def test_members_that_are_killed_are_tolerated_and_the_data_is_checked(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd") as cluster:
        load = Load(
            endpoints=tuple(cluster.endpoints),
            workload="mixed",
            clients=12,
            connections=6,
            keys=100,
            seconds=4.0,
            warmup_seconds=0.2,
            tolerate_failures=True,
            request_seconds_max=2.0,
        )
        killed: list[float] = []

        def kill_and_restart() -> None:
            for number in range(2):
                time.sleep(0.7)
                cluster.signal(number, signal.SIGKILL)
                killed.append(time.perf_counter())
                time.sleep(0.7)
                cluster.restart(number)

        fault = threading.Thread(target=kill_and_restart)
        edges: list[None] = []

        def on_edge() -> None:
            if not edges:
                fault.start()
            edges.append(None)

        result = run_load(load, on_edge)
        fault.join()
    assert result.connections_lost >= 2
    assert result.failed > 0
    assert result.checked.keys == 100
    assert all(result.started_monotonic < moment < result.started_monotonic + 4.0 for moment in killed[:1])


def test_a_lost_connection_is_an_error_if_it_is_not_tolerated(tmp_path: Path) -> None:
    from etcray_bench.load import LoadError

    with EtcdCluster(tmp_path / "etcd", members=1) as cluster:
        load = short_load(cluster.endpoints[0], "put", seconds=20.0)
        with pytest.raises(LoadError, match="a connection was lost"):
            run_load(load, lambda: cluster.signal(0, signal.SIGKILL))
