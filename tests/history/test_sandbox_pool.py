"""The pool: time, memory, cancelling, broken workers, and that none of it reaches the next query."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from etcray_storage.history.messages import Answer, Query
from etcray_storage.history.pool import QueryPool
from etcray_storage.history.rows import empty_sides
from etcray_storage.history.store import HistoryStore
from etcray_storage.limits import HISTORY_QUERIES_WAITING_MAX
from tests.history.endless import ENDLESS
from tests.history.model import Model, open_store, rows_of

DEAF = "SELECT repeat('x', 1000000000) || repeat('y', 1000000000)"
"""One call that runs for seconds, or longer, and looks at nothing meanwhile."""


def wait_until_busy(pool: QueryPool, *query_ids: str) -> list[int]:
    """Wait until each query has a worker that works for a while; gives the workers back.

    That a worker's process is busy does not say that it has a query: it is busy while it starts, too.
    """
    while None in (workers := [pool.worker_of(query_id) for query_id in query_ids]):
        time.sleep(0.02)
    process_ids = [worker for worker in workers if worker is not None]
    begun = {process_id: processor_ticks(process_id) for process_id in process_ids}
    while any(processor_ticks(process_id) < ticks + 20 for process_id, ticks in begun.items()):
        time.sleep(0.02)
    return process_ids


def processor_ticks(process_id: int) -> int:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Served:
    def __init__(self, directory: Path) -> None:
        self.model = Model()
        self.store: HistoryStore = open_store(directory)
        self.pool = QueryPool(directory, workers=2)
        self._number = 0

    def ask(self, sql: str, *parameters: Any, name: str = "", **limits: Any) -> Answer:
        self._number += 1
        snapshot = self.store.snapshot()
        try:
            query = Query(name or f"query-{self._number}", sql, list(parameters), **limits)
            return self.pool.run(query, snapshot, empty_sides())
        finally:
            snapshot.release()

    def write(self, count: int) -> None:
        for _ in range(count):
            self.model.change({b"key": b"%d" % self.model.revision})
        self.store.append(self.model.batch(self.store.position, self.model.revision))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("history"))
    yield served
    served.pool.close()
    served.store.close()


def test_every_query_sees_all_rows_of_its_snapshot_over_seals(served: Served) -> None:
    for step in range(12):
        served.write(3)
        if step % 4 == 3:
            served.store.seal()
        answer = served.ask("SELECT count(*), max(mod_revision) FROM history")
        assert rows_of(answer) == [(served.model.revision - 1, served.model.revision)]
        assert answer.revision == served.model.revision


def test_the_result_names_its_revision(served: Served) -> None:
    import pyarrow as pa

    answer = served.ask("SELECT 1 AS one")
    schema = pa.ipc.open_stream(answer.arrow).schema
    assert schema.metadata[b"etcray.revision"] == str(served.store.position).encode()


def test_parameters_are_bound_by_position_and_by_name(served: Served) -> None:
    assert rows_of(served.ask("SELECT ?, ?::BLOB, ?", "'; --", b"\x00'", None)) == [("'; --", b"\x00'", None)]
    snapshot = served.store.snapshot()
    answer = served.pool.run(Query("named", "SELECT $b + $a", {"a": 1, "b": 2}), snapshot, empty_sides())
    snapshot.release()
    assert rows_of(answer) == [(3,)]


def test_an_endless_query_is_stopped_and_its_worker_stays(served: Served) -> None:
    served.ask("SELECT 1")
    before = sorted(served.pool.process_ids())
    assert served.ask(ENDLESS, timeout_ms=300).error_code == "timeout"
    assert sorted(served.pool.process_ids()) == before


@pytest.mark.parametrize("sql", [DEAF, "SELECT len(list(range)) FROM range(50000000)"])
def test_a_query_that_does_not_listen_is_stopped_or_killed(served: Served, sql: str) -> None:
    answer = served.ask(sql, timeout_ms=400)
    assert answer.error_code in ("timeout", "out_of_memory"), answer
    assert rows_of(served.ask("SELECT 42")) == [(42,)]


def test_a_worker_that_is_stopped_altogether_is_killed_at_twice_the_time(served: Served) -> None:
    served.ask("SELECT 1")
    before = set(served.pool.process_ids())
    for process_id in before:
        os.kill(process_id, signal.SIGSTOP)
    answer = served.ask("SELECT 1", timeout_ms=300)
    assert (answer.error_code, "killed" in answer.error_message) == ("timeout", True)
    for process_id in before & set(served.pool.process_ids()):
        os.kill(process_id, signal.SIGCONT)
    assert rows_of(served.ask("SELECT 43")) == [(43,)]


@pytest.mark.parametrize("sql", [ENDLESS, DEAF])
def test_a_cancelled_query_stops(served: Served, sql: str) -> None:
    served.ask("SELECT 1")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(served.ask, sql, name="to-cancel", timeout_ms=60_000)
        while not served.pool.cancel("to-cancel"):
            time.sleep(0.01)
        assert running.result().error_code in ("cancelled", "out_of_memory")
    assert not served.pool.cancel("to-cancel")
    assert rows_of(served.ask("SELECT 44")) == [(44,)]


def test_a_worker_that_is_killed_from_outside_takes_only_its_own_query_with_it(served: Served) -> None:
    served.ask("SELECT 1")
    with ThreadPoolExecutor(2) as threads:
        names = ("one", "two")
        running = {name: threads.submit(served.ask, ENDLESS, name=name, timeout_ms=60_000) for name in names}
        victim, _ = wait_until_busy(served.pool, *names)
        os.kill(victim, signal.SIGKILL)
        done, others = wait(running.values(), return_when=FIRST_COMPLETED)
        answers = [future.result() for future in done]
        assert [answer.error_code for answer in answers] == ["unavailable"]
        assert "killed from outside" in answers[0].error_message
        for name in names:
            served.pool.cancel(name)
        assert [future.result().error_code for future in others] == ["cancelled"]
    assert rows_of(served.ask("SELECT 45")) == [(45,)]


def test_a_query_that_no_worker_takes_is_told_that_they_are_busy(served: Served) -> None:
    served.ask("SELECT 1")
    with ThreadPoolExecutor(2) as threads:
        names = ("one", "two")
        running = [threads.submit(served.ask, ENDLESS, name=name, timeout_ms=60_000) for name in names]
        wait_until_busy(served.pool, *names)
        answer = served.ask("SELECT 1", timeout_ms=200)
        assert (answer.error_code, "all workers" in answer.error_message) == ("busy", True)
        for name in names:
            served.pool.cancel(name)
        assert [future.result().error_code for future in running] == ["cancelled"] * 2


def test_while_no_worker_starts_queries_are_told_so(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    pool = QueryPool(tmp_path / "nowhere", workers=1)
    snapshot = store.snapshot()
    answer = pool.run(Query("query", "SELECT 1", timeout_ms=300), snapshot, empty_sides())
    assert (answer.error_code, "no worker has started" in answer.error_message) == ("unavailable", True)
    snapshot.release()
    pool.close()
    store.close()


def test_an_idle_worker_that_dies_is_replaced_before_anyone_notices(served: Served) -> None:
    served.ask("SELECT 1")
    for process_id in served.pool.process_ids():
        os.kill(process_id, signal.SIGKILL)
    assert rows_of(served.ask("SELECT 46")) == [(46,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(a || b) FROM range(100000000) t(a), range(10) u(b)",
        "WITH RECURSIVE t AS (SELECT 'x' AS a UNION ALL SELECT a || a FROM t) SELECT max(len(a)) FROM t",
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
    ],
)
def test_a_memory_bomb_leaves_everybody_else_alone(served: Served, sql: str) -> None:
    answer = served.ask(sql, timeout_ms=20_000)
    assert answer.error_code in ("out_of_memory", "timeout", "invalid"), answer
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert peak_kib < 1_000_000
    assert rows_of(served.ask("SELECT 47")) == [(47,)]


def test_results_are_bounded_in_rows_and_bytes(served: Served) -> None:
    assert served.ask("FROM range(1000000000)", rows_max=10).error_code == "too_many_rows"
    assert served.ask("FROM range(10)", rows_max=10).rows == 10
    answer = served.ask("SELECT repeat('x', 10000) FROM range(1000000)", bytes_max=1_000_000)
    assert (answer.error_code, "MiB" in answer.error_message) == ("too_many_rows", True)


@pytest.mark.parametrize(("name", "value"), [("timeout_ms", 0), ("timeout_ms", 10**9), ("rows_max", -1)])
def test_limits_beyond_the_limits_are_refused(served: Served, name: str, value: int) -> None:
    wrong: dict[str, Any] = {name: value}
    answer = served.ask("SELECT 1", **wrong)
    assert (answer.error_code, name in answer.error_message) == ("invalid", True)


def test_one_query_too_many_is_told_to_come_back(served: Served) -> None:
    count = 2 + HISTORY_QUERIES_WAITING_MAX
    with ThreadPoolExecutor(count) as threads:
        names = [f"busy-{number}" for number in range(count)]
        running = [threads.submit(served.ask, ENDLESS, name=name, timeout_ms=60_000) for name in names]
        while len(served.pool._jobs) < count:
            time.sleep(0.01)
        answer = served.ask("SELECT 1")
        assert (answer.error_code, "run or wait already" in answer.error_message) == ("busy", True)
        for name in names:
            served.pool.cancel(name)
        assert {future.result().error_code for future in running} == {"cancelled"}
    assert rows_of(served.ask("SELECT 48")) == [(48,)]


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.ask("SELECT 1")
    processes = served.pool.process_ids()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(served.ask, ENDLESS, name="endless", timeout_ms=60_000)
        time.sleep(0.5)
        threading.Thread(target=served.pool.close).start()
        assert running.result().error_code == "unavailable"
    served.pool.close()
    served.store.close()
    for process_id in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def test_a_syntax_error_says_where_it_is(served: Served) -> None:
    answer = served.ask("SELECT * FORM kv")
    assert answer.error_code == "invalid"
    assert "LINE 1: SELECT * FORM kv" in answer.error_message
