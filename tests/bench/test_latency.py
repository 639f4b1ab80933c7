"""Distributions and open loops: percentiles are right, and a slow server cannot hide."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray_bench.load.arrivals import Alarm, schedule_for
from etcray_bench.load.keys import KeySpace, Values, Zipfian, chooser, scattered
from etcray_bench.load.latency import EXACT_BELOW, Counts, Latency, bucket
from etcray_bench.load.options import Load
from etcray_bench.load.recorder import Recorder
from etcray_bench.load.responder import Answers, Responder, prepared_for
from etcray_bench.load.run import run_part


def counted(latencies: list[float]) -> Counts:
    return Counter(bucket(latency) for latency in latencies)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(min_value=1e-6, max_value=100.0), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_exact_ranks(latencies: list[float]) -> None:
    found = Latency.of(counted(latencies))
    ranked = sorted(latencies)
    for percentile, value in ((50, found.p50_ms), (90, found.p90_ms), (99, found.p99_ms)):
        # The rank is rounded, either way; then three digits of the histogram, a microsecond of the count.
        rank = len(ranked) * percentile / 100
        least, most = ranked[max(0, int(rank) - 1)] * 1e3, ranked[max(0, math.ceil(rank) - 1)] * 1e3
        assert least * (1 - 2.5e-3) - 1.1e-3 <= value <= most * (1 + 2.5e-3) + 1.1e-3
    assert found.max_ms == pytest.approx(ranked[-1] * 1e3, rel=2.5e-3, abs=1.1e-3)
    assert found.count == len(ranked)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.floats(min_value=1e-6, max_value=10.0), max_size=100),
    st.lists(st.floats(min_value=1e-6, max_value=10.0), max_size=100),
)
def test_merged_distributions_are_the_distribution_of_both(some: list[float], others: list[float]) -> None:
    merged = Latency.merged([Latency.of(counted(some)), Latency.of(counted(others))])
    whole = Latency.of(counted(some + others))
    assert (merged.count, merged.max_ms) == (whole.count, whole.max_ms)
    shares = (10.0, 50.0, 90.0, 99.9)
    assert merged.percentiles_ms(shares) == whole.percentiles_ms(shares)


def test_microseconds_are_exact_up_to_a_limit_and_near_above_it() -> None:
    assert bucket(0.001_234_5) == 1234
    assert bucket((EXACT_BELOW + 100) / 1e6) == EXACT_BELOW + 64


# --- which keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "theta"), [(10, 0.99), (1000, 0.99), (1000, 0.5)])
def test_zipfian_ranks_have_the_shares_of_the_theory(items: int, theta: float) -> None:
    ranks = Zipfian(items, theta, random.Random(5).random)
    draws = 100_000
    counts = Counter(ranks.rank() for _ in range(draws))
    zeta = sum(1 / (rank + 1) ** theta for rank in range(items))
    assert min(counts) == 0
    assert max(counts) < items
    for rank in (0, 1):  # The method is exact for these, and an approximation for the others.
        assert counts[rank] / draws == pytest.approx(1 / (rank + 1) ** theta / zeta, rel=0.05)
    for first in (items // 10, items // 3, items // 2):
        expected = sum(1 / (rank + 1) ** theta for rank in range(first)) / zeta
        assert sum(counts[rank] for rank in range(first)) / draws == pytest.approx(expected, abs=0.05)


def test_a_zipfian_that_grew_is_as_one_that_was_made_so_large() -> None:
    grown, made = Zipfian(10, 0.99, random.Random(1).random), Zipfian(500, 0.99, random.Random(1).random)
    for items in (11, 12, 500):
        grown.grow(items)
    assert [grown.rank() for _ in range(1000)] == [made.rank() for _ in range(1000)]


@settings(deadline=None, max_examples=30)
@given(st.integers(min_value=1, max_value=3000))
def test_scattering_is_a_permutation(items: int) -> None:
    permute = scattered(items)
    assert sorted(permute(rank) for rank in range(items)) == list(range(items))


def load(**options: object) -> Load:
    fields: dict[str, object] = {"endpoints": ("127.0.0.1:1",), "keys": 100, **options}
    return Load(**fields)  # type: ignore[arg-type]


def test_uniform_keys_are_even_and_sequential_ones_go_round() -> None:
    uniform = chooser(load(), random.Random(1))
    counts = Counter(uniform() for _ in range(100_000))
    assert len(counts) == 100
    assert max(counts.values()) < 1.2 * min(counts.values())
    sequential = chooser(load(distribution="sequential"), random.Random(1), first=3, stride=40)
    assert [sequential() for _ in range(4)] == [3, 43, 83, 23]


def test_keys_and_values_say_whose_they_are() -> None:
    space, values = KeySpace(b"p%/", 20), Values(load(value_bytes=20, value_bytes_max=50))
    assert space.key(7) == b"p%/" + b"7".rjust(17, b"0")
    assert space.number(space.key(7)) == 7
    assert (values.sizes[0], values.sizes[-1], len(values.sizes)) == (20, 50, 31)
    for size in values.sizes:
        value = values.value(7, 3 << 32 | 9, size)
        assert (len(value), values.stamp_of(7, value)) == (size, 3 << 32 | 9)


# --- when --------------------------------------------------------------------------------------------


def test_fixed_arrivals_are_even_and_poisson_ones_have_the_rate() -> None:
    fixed = schedule_for(100.0, "fixed", 5.0, random.Random(1))
    moments = []
    for _ in range(300):
        moments.append(fixed.next)
        fixed.step()
    assert moments == [5.0 + number / 100.0 for number in range(300)]
    poisson = schedule_for(100.0, "poisson", 5.0, random.Random(1))
    gaps, last = [], 5.0
    for _ in range(20_000):
        gaps.append(poisson.next - last)
        last = poisson.next
        poisson.step()
    assert sum(gaps) / len(gaps) == pytest.approx(0.01, rel=0.03)
    # Of an exponential distribution, the share above the mean is 1 / e.
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_an_alarm_rings_when_it_was_set_for_not_before() -> None:
    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        done = loop.create_future()

        def ring() -> None:
            rung.append(time.perf_counter())
            if len(rung) < 3:
                moments.append(rung[-1] + 0.003)
                alarm.set(moments[-1])
            else:
                done.set_result(None)

        alarm = Alarm(loop, ring)
        moments = [time.perf_counter() - 1.0]  # Has passed: at once.
        alarm.set(moments[0])
        await asyncio.wait_for(done, 30)
        alarm.close()
        return [late - moment for late, moment in zip(rung, moments, strict=True)]

    assert all(late >= 0 for late in asyncio.run(run()))


def test_what_is_still_waiting_at_the_end_counts_with_the_time_that_it_waited() -> None:
    recorder = Recorder(is_open=True)
    recorder.begin(10.0, 1.0)
    recorder.until = 11.0
    recorder.completed("put", 10.5, 10.6, 11.5)  # Meant to begin in the measured time, ended behind it.
    recorder.completed("put", 9.9, 9.9, 10.1)  # Meant to begin before it.
    recorder.never_began(10.25, 11.25)
    recorder.never_began(9.0, 11.25)
    assert recorder.latencies == {"put": {1_000_000 & ~63: 1}, "never begun": {1_000_000 & ~63: 1}}
    assert recorder.services == {"put": {899_999 & ~63: 1}} or recorder.services == {
        "put": {900_000 & ~63: 1}
    }
    assert (recorder.unstarted, sum(recorder.completions)) == (1, 1)


class PausingServer:
    """Answers at once, but for one pause. A context manager; `endpoint` is where."""

    def __init__(self, load: Load) -> None:
        self._answers = Answers(load)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections: list[Responder] = []

    def _connected(self) -> Responder:
        self.connections.append(Responder(self._answers))
        return self.connections[-1]

    def pause(self, seconds: float) -> None:
        for connection in self.connections:
            connection.pause_until = time.perf_counter() + seconds

    def __enter__(self) -> PausingServer:
        self._thread.start()
        opened = self._loop.create_server(self._connected, sock=self._listening)
        asyncio.run_coroutine_threadsafe(opened, self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        tasks = asyncio.all_tasks(self._loop)
        assert not tasks
        self._loop.close()
        self._listening.close()


@pytest.fixture
def pausing_server() -> Iterator[PausingServer]:
    with PausingServer(load()) as server:
        yield server


def test_a_pause_of_the_server_is_in_every_latency_that_it_delayed(pausing_server: PausingServer) -> None:
    """One client at 200/s; the server stops for a second. The client has one request under way then, which
    is all that a measurement from the sending notices: coordinated omission. The two hundred that should
    have begun meanwhile count from when they should have."""
    paced = load(
        endpoints=(pausing_server.endpoint,),
        clients=1,
        rate=200.0,
        arrivals="fixed",
        seconds=2.0,
        warmup_seconds=0.2,
    )
    edges: list[None] = []

    def on_edge() -> None:
        if not edges:
            pausing_server.pause(1.0)
        edges.append(None)

    recording = run_part(paced, prepared_for(paced), on_edge=on_edge).recording
    corrected = Latency.of(recording.latencies["put"])
    service = Latency.of(recording.services["put"])
    slow_services = sum(count for key, count in recording.services["put"].items() if key > 500_000)
    slow_corrected = sum(count for key, count in recording.latencies["put"].items() if key > 250_000)
    assert slow_services <= 2
    assert slow_corrected >= 100
    assert corrected.p50_ms > service.p50_ms
    assert corrected.max_ms > 900
