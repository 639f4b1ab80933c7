"""Questions about the past: SQL over etcray's history, and a real etcd's API with counting in the client.

Both stores are given the same changes in the same transactions, and have to give the same answers. What etcd
is asked is what its API offers for it: a range at a revision, or a watch that begins in the past, whose
events the client counts, compares or searches. That costs mostly the client's CPU, as it would cost any
user's; the figure says what is to be had, not who is to blame.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from etcray.client import Client, WatchEvent
from etcray_bench.experiments.changes import NEEDLE, TIMEOUT_SECONDS, Changes
from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.experiments.versus_etcd_watch import SYSTEM
from etcray_bench.load import CheckFailedError
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.spec import ETCD, SystemSpec
from etcray_bench.systems.system import System

ROWS_MAX: Final = 10_000_000
PREFIX: Final = "/service-3/"


class Question(NamedTuple):
    """One question, as both are asked it, about a store of which this is the newest revision. The answers are
    made comparable."""

    of_history: Callable[[Client, int], Any]
    of_etcd: Callable[[Client, int], Any]


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


def most_changed_sql(client: Client, newest: int) -> Any:
    query = """SELECT key, count(*) AS n FROM history WHERE mod_revision <= ?
               GROUP BY key ORDER BY n DESC, key LIMIT 10"""
    return rows(client, query, newest)


def most_changed_etcd(client: Client, newest: int) -> Any:
    counted = Counter(event.key for event in events(client, 2, newest))
    return sorted(counted.items(), key=lambda found: (-found[1], found[0]))[:10]


def prefix_sql(client: Client, newest: int) -> Any:
    query = "SELECT key, value FROM kv_at(?) WHERE starts_with(key_text, ?) ORDER BY key"
    return rows(client, query, newest // 2, PREFIX)


def prefix_etcd(client: Client, newest: int) -> Any:
    return [(pair.key, pair.value) for pair in client.get_prefix(PREFIX, revision=newest // 2).kvs]


def changes_sql(client: Client, newest: int) -> Any:
    query = "SELECT key, new_value FROM changes(?, ?) ORDER BY key"
    return rows(client, query, newest * 4 // 10, newest * 5 // 10)


def changes_etcd(client: Client, newest: int) -> Any:
    old, new = newest * 4 // 10, newest * 5 // 10
    return sorted({event.key: event.value for event in events(client, old + 1, new)}.items())


def word_sql(client: Client, newest: int) -> Any:
    query = "SELECT count(*) FROM history WHERE mod_revision <= ? AND contains(value_text, ?)"
    return rows(client, query, newest, NEEDLE)[0][0]


def word_etcd(client: Client, newest: int) -> Any:
    return sum(NEEDLE.encode() in event.value for event in events(client, 2, newest))


QUESTIONS: Final = {
    "most changed keys": Question(most_changed_sql, most_changed_etcd),
    "a prefix in the past": Question(prefix_sql, prefix_etcd),
    "what changed between": Question(changes_sql, changes_etcd),
    "a word in all values": Question(word_sql, word_etcd),
}


class VersusEtcdHistory(Experiment):
    name = "versus-etcd-history"
    question = "How long do questions about the past take, in SQL and through etcd's API?"
    variables = (
        Variable(
            name="changes", values=(1_000_000,), quick=(5_000,), about="changes of a tenth as many keys"
        ),
        Variable(name="question", values=tuple(QUESTIONS), quick=tuple(QUESTIONS), about="question"),
        SYSTEM,
    )
    plots = (
        Plot(kind="bars", x="question", lines=("system",), y="answer_ms", y_label="ms until the answer"),
    )
    needs_etcd = True
    caption = (
        "etcd's API has no such questions: all but the prefix are counted in a Python client from a watch."
    )

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, Any], Any] = {}

    def spec(self, point: PointValues) -> SystemSpec:
        purpose = f"questions about {Changes(int(point['changes'])).purpose}"
        return SystemSpec(system=str(point["system"]), purpose=purpose)

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        question = QUESTIONS[str(point["question"])]
        started_at = now()
        with Client(list(system.endpoints), timeout=TIMEOUT_SECONDS) as client:
            tell(f"writing {point['changes']:,} changes")
            newest = Changes(int(point["changes"])).load(client)
            if system.name != ETCD:
                rows(client, "SELECT 1")  # fresh, so the history has everything now
        # Asked on a connection of its own.
        with Client(list(system.endpoints), timeout=TIMEOUT_SECONDS) as client:
            tell("asking")
            begun = time.perf_counter()
            ask = question.of_etcd if system.name == ETCD else question.of_history
            answer = ask(client, newest)
            seconds = time.perf_counter() - begun
            size = client.status().db_size
        known = self._answers.setdefault((point["changes"], point["question"]), answer)
        if known != answer:
            raise CheckFailedError(f"the answers differ: {known!r:.200} and {answer!r:.200}")
        return Sample(
            system=system.name,
            started_at=started_at,
            seconds=seconds,
            figures={"answer_ms": seconds * 1e3, "member_bytes_per_change": size / int(point["changes"])},
        )
