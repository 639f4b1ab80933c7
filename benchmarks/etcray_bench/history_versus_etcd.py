"""Questions about the past: SQL over etcray's history, and a real etcd's API with counting in the client.

    python -m etcray_bench.history_versus_etcd --revisions 1000000

Both clusters have three members on this machine and are given the same changes, in the same transactions:
first every key once, then some keys far more often than others. Every question is asked of both, and the
two answers have to be equal. What etcd is asked is what its API offers for it: a range at a revision, or a
watch that begins in the past, whose events the client counts, compares or searches.

Then, of etcray alone: how fast the history reads everything again after it was lost, how far it is behind
commits, its bytes on disk, and what puts cost the members' clients while queries run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from etcray.client import Client, EtcrayError, Put, WatchEvent
from etcray_bench.etcd import find_etcd
from etcray_bench.load import Load, run_load
from etcray_bench.systems import Etcd, Etcray

PREFIXES: Final = 10
NEEDLE: Final = "needle"
NEEDLE_SHARE: Final = 0.001
TIMEOUT_SECONDS: Final = 600.0
ROWS_MAX: Final = 10_000_000
PUTS_PER_SECOND: Final = 5_000
PUTS_AT_ONCE: Final = 125
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


@dataclass(frozen=True, slots=True)
class Data:
    """What is written: the same for the same numbers."""

    revisions: int
    """Changes of a key; those of one transaction share a revision of the store."""
    per_transaction: int

    @property
    def keys(self) -> int:
        return self.revisions // 10

    def key(self, number: int) -> str:
        return f"/service-{number % PREFIXES}/instance-{number // PREFIXES:06}"

    def transactions(self) -> Iterator[list[tuple[str, str]]]:
        """Each changes a key at most once."""
        rng = random.Random(self.revisions)
        written = 0
        while written < self.revisions:
            size = min(self.per_transaction, self.revisions - written)
            numbers: dict[int, None] = {}
            while len(numbers) < size:
                first = written + len(numbers)
                numbers[first if first < self.keys else int(self.keys * rng.random() ** 4)] = None
            yield [(self.key(number), self.value(rng)) for number in numbers]
            written += size

    def value(self, rng: random.Random) -> str:
        word = NEEDLE if rng.random() < NEEDLE_SHARE else "hay"
        state = rng.choice(("up", "down", "unknown"))
        return f'{{"state": "{state}", "note": "{word} {rng.randbytes(24).hex()}"}}'


class Answered(NamedTuple):
    milliseconds: float
    answer: Any


class Question(NamedTuple):
    """One question, as both are asked it. The answers are made comparable."""

    name: str
    of_history: Callable[[Client], Any]
    of_etcd: Callable[[Client], Any]


def load(client: Client, data: Data) -> int:
    """Write all of it; returns the revision at the end."""
    revision = 0
    for transaction in data.transactions():
        revision = client.txn().then(*(Put(key, value) for key, value in transaction)).commit().revision
    return revision


def rows(client: Client, query: str, *parameters: int | str) -> list[tuple[Any, ...]]:
    return client.sql(query, list(parameters), timeout=TIMEOUT_SECONDS, rows_max=ROWS_MAX).fetchall()


def events(client: Client, first: int, last: int) -> Iterator[WatchEvent]:
    """Everything that happened in these revisions."""
    with client.watch("", prefix=True, start_revision=first) as watch:
        while True:
            batch = watch.next_batch()
            assert batch is not None, "the watch ended before its last revision"
            for event in batch.events:
                if event.revision > last:
                    return
                yield event
            if batch.revision >= last:
                return


def questions(newest: int) -> list[Question]:
    """About a store whose revisions go from 2 to this one."""
    prefix, past = "/service-3/", newest // 2
    old, new = newest * 4 // 10, newest * 5 // 10

    def most_changed(client: Client) -> list[tuple[bytes, int]]:
        counted = Counter(event.key for event in events(client, 2, newest))
        return sorted(counted.items(), key=lambda found: (-found[1], found[0]))[:10]

    def changed(client: Client) -> list[tuple[bytes, bytes]]:
        last = {event.key: event.value for event in events(client, old + 1, new)}
        return sorted(last.items())

    def found(client: Client) -> int:
        return sum(NEEDLE.encode() in event.value for event in events(client, 2, newest))

    def state(client: Client) -> list[tuple[bytes, bytes]]:
        return [(pair.key, pair.value) for pair in client.get_prefix(prefix, revision=past).kvs]

    return [
        Question(
            "top 10 most changed keys",
            lambda client: rows(
                client, "SELECT key, count(*) AS n FROM history GROUP BY key ORDER BY n DESC, key LIMIT 10"
            ),
            most_changed,
        ),
        Question(
            "a prefix (a tenth of all keys) at a past revision",
            lambda client: rows(
                client,
                "SELECT key, value FROM kv_at(?) WHERE starts_with(key_text, ?) ORDER BY key",
                past,
                prefix,
            ),
            state,
        ),
        Question(
            "all changes between two revisions (a tenth)",
            lambda client: rows(client, "SELECT key, new_value FROM changes(?, ?) ORDER BY key", old, new),
            changed,
        ),
        Question(
            "a word in all values",
            lambda client: rows(client, "SELECT count(*) FROM history WHERE contains(value_text, ?)", NEEDLE)[
                0
            ][0],
            found,
        ),
    ]


def timed(ask: Callable[[Client], Any], endpoints: Sequence[str], rounds: int) -> Answered:
    """The median of some rounds, each on a connection of its own."""
    times = []
    answer: Any = None
    for _ in range(rounds):
        with Client(endpoints, timeout=TIMEOUT_SECONDS) as client:
            begun = time.perf_counter()
            answer = ask(client)
            times.append((time.perf_counter() - begun) * 1000)
    return Answered(statistics.median(times), answer)


def compare(etcray: Etcray, etcd: Etcd, data: Data, rounds: int) -> list[str]:
    """Load both and ask both; raises if the answers differ."""
    loaded = []
    for system in (etcray, etcd):
        with Client(system.endpoints, timeout=TIMEOUT_SECONDS) as client:
            begun = time.perf_counter()
            loaded.append(load(client, data))
            tell(f"{system.name}: {data.revisions / (time.perf_counter() - begun):,.0f} changes/s loaded")
    assert loaded[0] == loaded[1], f"the revisions differ: {loaded}"
    with Client(etcray.endpoints, timeout=TIMEOUT_SECONDS) as client:
        rows(client, "SELECT 1")  # fresh, so the history has everything now
    lines = ["| question | etcray SQL ms | etcd API ms | ratio |", "|---|---:|---:|---:|"]
    for question in questions(loaded[0]):
        ours = timed(question.of_history, etcray.endpoints, rounds)
        theirs = timed(question.of_etcd, etcd.endpoints, rounds)
        if ours.answer != theirs.answer:
            raise SystemExit(f"{question.name}: {ours.answer!r:.300} here, {theirs.answer!r:.300} at etcd")
        ratio = theirs.milliseconds / ours.milliseconds
        lines.append(
            f"| {question.name} | {ours.milliseconds:,.0f} | {theirs.milliseconds:,.0f} | {ratio:.2f} x |"
        )
        tell(lines[-1])
    return lines


def sizes(etcray: Etcray, etcd: Etcd, data: Data) -> list[str]:
    """Disk per change. etcd's log is left out, because its length depends on when it was cut last."""
    with Client(etcd.endpoints[0]) as client:
        backend = client.status().db_size
    return [
        f"| history on disk | {etcray.history()['size_bytes'] / data.revisions:,.0f} bytes per change |",
        f"| etcd's backend on disk, one member | {backend / data.revisions:,.0f} bytes per change |",
    ]


def rebuilt(etcray: Etcray) -> list[str]:
    """Lose the history altogether, and see how fast the members tell it again."""
    before = etcray.history()
    shutil.rmtree(str(before["directory"]), ignore_errors=True)
    os.kill(int(before["process_id"]), signal.SIGKILL)
    begun = time.perf_counter()
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1] < before["rows"]:
        with suppress(KeyError, TypeError):  # while there is none, the status has no history
            now = etcray.history()
            if now["process_id"] != before["process_id"]:
                seen.append((time.perf_counter(), int(now["rows"])))
        if time.perf_counter() - begun > TIMEOUT_SECONDS:
            raise SystemExit("the history did not come back")
    (first_at, first), (last_at, last) = seen[0], seen[-1]
    told = f"{(last - first) / (last_at - first_at):,.0f} rows/s" if first < last else "too fast to be seen"
    return [
        f"| lost and read again, its restart included | {last_at - begun:.1f} s for {last:,} rows |",
        f"| rows while it reads (the status is asked in turns) | {told} |",
    ]


def lag(etcray: Etcray, seconds: float) -> list[str]:
    """How old the oldest commit is that a stale query does not see, at a steady rate of puts."""
    committed: list[tuple[int, float]] = []
    stopped = threading.Event()

    def write() -> None:
        with Client(etcray.endpoints, timeout=30.0) as client:
            begun, number = time.perf_counter(), 0
            while not stopped.is_set():
                keys = range(number * PUTS_AT_ONCE, (number + 1) * PUTS_AT_ONCE)
                puts = [Put(f"/lag/{key % 5_000}", "x" * 100) for key in keys]
                revision = client.txn().then(*puts).commit().revision
                committed.append((revision, time.perf_counter()))
                number += 1
                due = begun + number * PUTS_AT_ONCE / PUTS_PER_SECOND
                stopped.wait(max(0.0, due - time.perf_counter()))

    lags = []
    writer = threading.Thread(target=write)
    begun = time.perf_counter()
    writer.start()
    with Client(etcray.endpoints) as client:
        while time.perf_counter() < begun + seconds:
            asked = time.perf_counter()
            seen = client.sql("SELECT 1", stale=True).revision
            missing = [at for revision, at in list(committed) if revision > seen and at < asked]
            lags.append((asked - min(missing)) * 1000 if missing else 0.0)
            time.sleep(0.05)
    stopped.set()
    writer.join()
    rate = len(committed) * PUTS_AT_ONCE / (time.perf_counter() - begun)
    ranked = sorted(lags)
    p50, p99 = ranked[len(ranked) // 2], ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    return [
        f"| puts while the lag was measured | {rate:,.0f} per second |",
        f"| behind the commit, p50 and p99 of {len(lags)} looks | {p50:.0f} ms, {p99:.0f} ms |",
    ]


@contextmanager
def asking(endpoints: Sequence[str], queries: Sequence[str]) -> Iterator[Counter[str]]:
    """Ask them in turns, without a pause, until the end of the block; counts the outcomes."""
    stopped = threading.Event()
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        with Client(endpoints) as client:
            while not stopped.is_set():
                for query in queries:
                    if stopped.is_set():
                        return
                    try:
                        client.sql(query, stale=True, timeout=3.0)
                        outcomes["answered"] += 1
                    except EtcrayError:
                        outcomes["refused or stopped"] += 1

    thread = threading.Thread(target=ask)
    if queries:
        thread.start()
    try:
        yield outcomes
    finally:
        stopped.set()
        if queries:
            thread.join()


def put_latencies(etcray: Etcray, options: argparse.Namespace) -> list[str]:
    """Of the members' clients, while nothing, an ordinary query or hostile ones run all the time."""
    lines = [
        "| queries meanwhile | puts/s | p50 ms | p99 ms | queries |",
        "|---|---:|---:|---:|---|",
    ]
    measured: dict[str, list[Any]] = {}
    kinds = {"none": (), "an ordinary analytical one": ORDINARY, "hostile ones": HOSTILE}
    for _ in range(options.rounds):
        for name, queries in kinds.items():
            put = Load(endpoints=tuple(etcray.endpoints), workload="put", clients=64, seconds=options.seconds)
            with asking(etcray.endpoints, queries) as outcomes:
                result = run_load(put)
            measured.setdefault(name, []).append((result, dict(outcomes)))
            tell(f"puts while {name}: {result.requests_per_second:,.0f}/s, {outcomes}")
    for name, runs in measured.items():
        rate = statistics.median(result.requests_per_second for result, _ in runs)
        p50, p99 = (
            statistics.median(result.latency_ms[share] for result, _ in runs) for share in ("p50", "p99")
        )
        counted = ", ".join(f"{count} {outcome}" for outcome, count in runs[-1][1].items())
        lines.append(f"| {name} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {counted} |")
    return lines


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m etcray_bench.history_versus_etcd")
    parser.add_argument("--revisions", type=int, default=1_000_000, help="changes; of a tenth as many keys")
    parser.add_argument("--per-transaction", type=int, default=128, help="changes of one transaction")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load with puts")
    parser.add_argument("--etcd", default="3.5", help="3.5, system, or the path of a binary")
    parser.add_argument("--data-dir", type=Path, help="a temporary directory if not given")
    options = parser.parse_args()
    data = Data(options.revisions, options.per_transaction)
    binary = find_etcd(options.etcd)
    with tempfile.TemporaryDirectory(dir=options.data_dir, prefix="history-versus-etcd-") as directory:
        etcray = Etcray(Path(directory) / "etcray")
        try:
            etcd = Etcd(Path(directory) / "etcd", binary)
            try:
                asked = compare(etcray, etcd, data, options.rounds)
                told = sizes(etcray, etcd, data)
            finally:
                etcd.stop()
            told += [*rebuilt(etcray), *lag(etcray, options.seconds)]
            tell("\n".join(told))
            loads = put_latencies(etcray, options)
        finally:
            etcray.stop()
    print(f"{data.revisions:,} changes of {data.keys:,} keys, {data.per_transaction} in each transaction\n")
    print("\n".join([*asked, "", "| of the history | |", "|---|---|", *told, "", *loads]))


if __name__ == "__main__":
    main()
