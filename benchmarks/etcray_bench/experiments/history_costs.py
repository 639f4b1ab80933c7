"""The history as a follower: how far behind it is, how soon back, and what its queries cost others."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from etcray.client import Client, EtcrayError, Put
from etcray.processes import wait_until_gone
from etcray_bench.experiments.changes import TIMEOUT_SECONDS, Changes
from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.load import CheckFailedError
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.etcray_system import EtcraySystem
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System, SystemFailedError

PUTS_AT_ONCE: Final = 125
LOOK_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.05
GONE_SECONDS_MAX: Final = 10.0
ORDINARY: Final = ("SELECT author, op, count(*), avg(octet_length(value)) FROM history GROUP BY ALL",)
HOSTILE: Final = (
    "SELECT count(*) FROM range(1000000000) a, range(1000000000) b",
    "SELECT list(a || b) FROM range(100000000) t(a), range(10) u(b)",
    "SELECT * FROM history a, history b ORDER BY hash(a.key)",
    "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t",
    "SELECT list_transform(range(100000000), lambda x: repeat('y', 1000))",
    "WITH x AS (DELETE FROM history RETURNING *) SELECT * FROM x",
    "SELECT * FROM read_text('/etc/passwd')",
)
QUERIES: Final = {"none": (), "ordinary": ORDINARY, "hostile": HOSTILE}


def count_rows(client: Client) -> int:
    """Of the history, once it has everything that is committed now."""
    counted: int = client.sql("SELECT count(*) FROM history", timeout=TIMEOUT_SECONDS).fetchall()[0][0]
    return counted


class HistoryQueries(Experiment):
    name = "history-queries"
    question = "What do queries of the history cost the clients that write?"
    variables = (
        Variable(
            name="queries",
            values=tuple(QUERIES),
            quick=("none", "ordinary"),
            about="queries that run meanwhile",
            in_turns=True,
        ),
        Variable(name="changes", values=(1_000_000,), quick=(2_000,), about="changes in the history"),
        Variable(name="clients", values=(64,), quick=(16,), about="clients"),
    )
    plots = (
        Plot(kind="bars", x="clients", lines=("queries",)),
        Plot(kind="percentiles", lines=("queries",)),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(purpose=Changes(int(point["changes"])).purpose)

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        with Client(list(system.endpoints), timeout=TIMEOUT_SECONDS) as client:
            Changes(int(point["changes"])).load(client)
            count_rows(client)
        with asking(system.endpoints, QUERIES[str(point["queries"])]) as outcomes:
            sample = super().measure(system, point, repetition, settings, tell)
        return replace(sample, figures={f"queries_{name}": count for name, count in outcomes.items()})


@contextmanager
def asking(endpoints: Sequence[str], queries: Sequence[str]) -> Generator[Counter[str]]:
    """Ask them in turns, without a pause, until the end of the block; counts the outcomes."""
    ended = threading.Event()
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        with Client(list(endpoints)) as client:
            while not ended.is_set():
                for query in queries:
                    if ended.is_set():
                        return
                    try:
                        client.sql(query, stale=True, timeout=3.0)
                        outcomes["answered"] += 1
                    except EtcrayError:
                        outcomes["refused"] += 1

    thread = threading.Thread(target=ask, name="queries")
    if queries:
        thread.start()
    try:
        yield outcomes
    finally:
        ended.set()
        if queries:
            thread.join()


class HistoryLag(Experiment):
    name = "history-lag"
    question = "How far is the history behind the commits, at a steady rate of puts?"
    variables = (
        Variable(name="puts_per_second", values=(1_000, 5_000), quick=(1_000,), about="puts per second"),
    )
    plots = (
        Plot(kind="scaling", x="puts_per_second", y="lag_ms_p50", y_label="p50 of the lag, ms"),
        Plot(kind="scaling", x="puts_per_second", y="lag_ms_p99", y_label="p99 of the lag, ms"),
    )
    caption = "The age of the oldest commit that a query with --stale does not see. Puts come 125 at once."

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        with Client(list(system.endpoints), timeout=TIMEOUT_SECONDS) as client:
            client.put("lag/first", "put")
            count_rows(client)  # whatever it still had to read is not lag
        tell("writing and asking")
        started_at = now()
        rate, lags = measure_lag(system.endpoints, int(point["puts_per_second"]), settings.seconds)
        ranked = sorted(lags)
        return Sample(
            system=system.name,
            started_at=started_at,
            seconds=settings.seconds,
            figures={
                "lag_ms_p50": ranked[len(ranked) // 2],
                "lag_ms_p99": ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))],
                "written_per_second": rate,
                "looks": len(ranked),
            },
        )


def measure_lag(endpoints: Sequence[str], puts_per_second: int, seconds: float) -> tuple[float, list[float]]:
    """The rate that came about, and the lags in milliseconds."""
    committed: list[tuple[int, float]] = []
    ended = threading.Event()

    def write() -> None:
        with Client(list(endpoints), timeout=30.0) as client:
            begun, number = time.perf_counter(), 0
            while not ended.is_set():
                keys = range(number * PUTS_AT_ONCE, (number + 1) * PUTS_AT_ONCE)
                puts = [Put(f"lag/{key % 5_000}", "x" * 100) for key in keys]
                revision = client.txn().then(*puts).commit().revision
                committed.append((revision, time.perf_counter()))
                number += 1
                due = begun + number * PUTS_AT_ONCE / puts_per_second
                ended.wait(max(0.0, due - time.perf_counter()))

    lags = []
    writer = threading.Thread(target=write, name="writer")
    begun = time.perf_counter()
    writer.start()
    try:
        with Client(list(endpoints)) as client:
            while time.perf_counter() < begun + seconds:
                asked = time.perf_counter()
                seen = client.sql("SELECT 1", stale=True).revision
                missing = [at for revision, at in list(committed) if revision > seen and at < asked]
                lags.append((asked - min(missing)) * 1e3 if missing else 0.0)
                time.sleep(LOOK_SECONDS)
    finally:
        ended.set()
        writer.join()
    return len(committed) * PUTS_AT_ONCE / (time.perf_counter() - begun), lags


class HistoryRebuild(Experiment):
    name = "history-rebuild"
    question = "How long is there no history after its process was killed, with its files and without them?"
    variables = (
        Variable(name="changes", values=(1_000_000,), quick=(2_000,), about="changes in the history"),
        Variable(
            name="files", values=("kept", "lost"), quick=("kept", "lost"), about="its files", in_turns=True
        ),
    )
    plots = (
        Plot(
            kind="bars", x="changes", lines=("files",), y="away_seconds", y_label="seconds without a history"
        ),
    )
    caption = "Until a query is answered that sees everything. Lost files are read again from the members."

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(purpose=Changes(int(point["changes"])).purpose)

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        assert isinstance(system, EtcraySystem), "only etcray has a history"
        started_at = now()
        with Client(list(system.endpoints), timeout=TIMEOUT_SECONDS) as client:
            tell("writing")
            Changes(int(point["changes"])).load(client)
            held = count_rows(client)
            history = system.status()["history"]
            size = float(history["size_bytes"])
            tell("waiting for it to be back")
            away = lose(client, history, held, files_too=point["files"] == "lost")
        return Sample(
            system=system.name,
            started_at=started_at,
            seconds=away,
            figures={
                "away_seconds": away,
                "rows_per_second": held / away,
                "history_bytes_per_change": size / held,
            },
        )


def lose(client: Client, history: dict[str, Any], held: int, *, files_too: bool) -> float:
    """Kill it; seconds until a fresh query has all of its rows again.

    The status is not asked: for a moment it still tells of the process that was killed. Once that process is
    gone, whoever answers a query is its successor, and a fresh answer means that it has read everything."""
    if files_too:
        shutil.rmtree(str(history["directory"]), ignore_errors=True)
    process = int(history["process_id"])
    os.kill(process, signal.SIGKILL)
    begun = time.perf_counter()
    wait_until_gone([process], GONE_SECONDS_MAX)
    while True:
        try:
            found = count_rows(client)
            break
        except EtcrayError as error:
            if time.perf_counter() - begun > TIMEOUT_SECONDS:
                raise SystemFailedError(f"the history did not come back: {error}") from error
            time.sleep(RETRY_SECONDS)
    away = time.perf_counter() - begun
    if found != held:
        raise CheckFailedError(f"the history had {held} rows, and has {found} after it was back")
    return away
