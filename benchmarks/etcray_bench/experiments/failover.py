"""The leader's process is killed while clients write. For how long is nobody served?"""

from __future__ import annotations

import time
from datetime import datetime
from statistics import median
from typing import Final

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.experiments.pauses import Writers
from etcray_bench.results.records import Event, Sample
from etcray_bench.results.store import now
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System, SystemFailedError

HEAL_SECONDS_MAX: Final = 60.0


class Failover(Experiment):
    name = "failover"
    question = "For how long are writes not served after SIGKILL of the leader's process?"
    variables = (
        Variable(
            name="system", values=("etcray", "etcd"), quick=("etcray", "etcd"), about="system", in_turns=True
        ),
        Variable(name="writers", values=(8,), quick=(4,), about="writers"),
    )
    plots = (
        Plot(kind="timeline", lines=("system",)),
        Plot(kind="distribution", lines=("system",), y="pause_ms", y_label="pause of writes, ms"),
    )
    repetitions = 50
    quick_repetitions = 2
    seconds = 5.0
    quick_seconds = 2.5
    needs_etcd = True
    caption = (
        "Each repetition is one kill; the pause is the longest time in which no writer was answered. "
        "A writer tries another endpoint after a failure, or after a second without an answer."
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(system=str(point["system"]))

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        return measure_failover(system, settings, tell, writers=int(point["writers"]))


def measure_failover(system: System, settings: Settings, tell: Teller, *, writers: int = 8) -> Sample:
    """One kill. Returns when the killed member is back."""
    system.await_whole(HEAL_SECONDS_MAX)
    started_at, before = now(), settings.seconds / 3
    tell("the leader is about to be killed")
    with Writers(system.endpoints, writers) as writing:
        time.sleep(settings.warmup_seconds)
        begun = time.perf_counter()
        time.sleep(before)
        killed = system.kill_leader()
        while time.perf_counter() < begun + settings.seconds or not served_since(writing, killed):
            if time.perf_counter() > killed + HEAL_SECONDS_MAX:
                raise SystemFailedError(f"no write was answered for {HEAL_SECONDS_MAX:.0f} s")
            time.sleep(0.02)
        ended = time.perf_counter()
        system.begin_healing()
        tell("waiting for the killed member")
        system.await_whole(HEAL_SECONDS_MAX)
    writing.check()
    return sample_of_kill(system.name, started_at, writing, begun, killed, ended)


def served_since(writers: Writers, moment: float) -> bool:
    return bool(writers.answered) and writers.answered[-1][0] > moment + 0.1


def sample_of_kill(
    system: str, started_at: datetime, writers: Writers, begun: float, killed: float, ended: float
) -> Sample:
    within = [(at, seconds) for at, seconds in writers.answered if begun <= at <= ended]
    failures = [(at, text) for at, text in writers.failed if begun <= at <= ended]
    latencies = sorted(seconds * 1e3 for _, seconds in within)
    return Sample(
        system=system,
        started_at=started_at,
        seconds=ended - begun,
        requests=len(within),
        failures=len(failures),
        first_failure=failures[0][1] if failures else "",
        requests_per_second=len(within) / (ended - begun),
        latency_ms={"p50": median(latencies), "max": latencies[-1]},
        series=writers.slices(begun, ended),
        events=(Event(at_seconds=killed - begun, name="SIGKILL", detail="the leader's process"),),
        figures={"pause_ms": writers.pause_after(killed, ended) * 1e3, "failed_puts": len(failures)},
    )
