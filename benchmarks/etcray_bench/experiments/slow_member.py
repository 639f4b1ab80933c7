"""One member is slow for a while: its disk, or its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Final

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.experiments.measuring import measure_load
from etcray_bench.results.records import Event, Sample
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System

CLEAR_SECONDS_MAX: Final = 0.3
"""At either end of each third this much is in no figure: it belongs to both."""


class SlowMember(Experiment):
    """The middle third of the measured time is with the fault."""

    what: ClassVar[str]
    seconds = 12.0
    quick_seconds = 3.0
    plots = (
        Plot(kind="timeline", lines=("role", "delay_ms")),
        Plot(
            kind="scaling",
            x="delay_ms",
            lines=("role", "clients"),
            y="share_while_slow",
            y_label="throughput while it is slow, of that before",
            ideal="flat",
        ),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(can_be_slowed=True)

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        delay, role = float(point["delay_ms"]), str(point["role"])
        fault = Fault(settings.seconds, lambda ms: self._slow(system, role, ms), delay)
        try:
            sample = measure_load(
                system,
                self.load(point),
                seconds=settings.seconds,
                warmup_seconds=settings.warmup_seconds,
                tell=tell,
                on_edge=fault.edge,
            )
        finally:
            fault.end()
        text = f"{self.what} of the {role} +{delay:g} ms"
        begun, ended = fault.times()
        clear = min(CLEAR_SECONDS_MAX, settings.seconds / 12)
        before = rate_between(sample, clear, begun - clear)
        during = rate_between(sample, begun + clear, ended - clear)
        after = rate_between(sample, ended + clear, settings.seconds - clear)
        return replace(
            sample,
            events=(
                Event(at_seconds=begun, name="slow", detail=text),
                Event(at_seconds=ended, name="healed"),
            ),
            figures={
                "before_per_second": before,
                "while_slow_per_second": during,
                "after_per_second": after,
                "share_while_slow": during / before if before else 0.0,
            },
        )

    def _slow(self, system: System, role: str, delay_ms: float) -> None:
        raise NotImplementedError(f"{self.name} slows nothing")


class SlowDisk(SlowMember):
    name = "slow-disk"
    what = "disk"
    question = "What happens to puts while the disk of the leader, or of one follower, is slow?"
    variables = (
        Variable(name="role", values=("leader", "follower"), quick=("follower",), about="whose disk"),
        Variable(
            name="delay_ms", values=(0.0, 5.0, 20.0, 100.0), quick=(20.0,), about="a sync takes longer by, ms"
        ),
        Variable(name="clients", values=(64,), quick=(16,), about="clients"),
    )
    caption = (
        "One slow follower need not matter: the other two are a majority. A slow leader may not, either."
    )

    def _slow(self, system: System, role: str, delay_ms: float) -> None:
        system.slow(role, disk_ms=delay_ms, peer_ms=0.0)


class SlowPeer(SlowMember):
    name = "slow-peer"
    what = "answers"
    question = "What happens to puts while one follower answers the leader late?"
    variables = (
        Variable(name="role", values=("follower",), quick=("follower",), about="whose answers"),
        Variable(
            name="delay_ms",
            values=(0.0, 5.0, 20.0, 100.0),
            quick=(20.0,),
            about="an answer takes longer by, ms",
        ),
        Variable(name="clients", values=(64,), quick=(16,), about="clients"),
    )

    def _slow(self, system: System, role: str, delay_ms: float) -> None:
        system.slow(role, disk_ms=0.0, peer_ms=delay_ms)


class Fault:
    """Begins after the first third of the measured time, ends after the second one, in a thread."""

    def __init__(self, seconds: float, slow: Callable[[float], None], delay_ms: float) -> None:
        self._seconds = seconds
        self._slow = slow
        self._delay_ms = delay_ms
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._edge_at = 0.0
        self._times: list[float] = []
        self._error: Exception | None = None

    def edge(self) -> None:
        """The measured time begins, or ends."""
        if self._thread is None:
            self._edge_at = time.perf_counter()
            self._thread = threading.Thread(target=self._run, name="fault")
            self._thread.start()

    def _run(self) -> None:
        try:
            for third, delay_ms in ((1, self._delay_ms), (2, 0.0)):
                due = self._edge_at + self._seconds * third / 3
                if self._ended.wait(max(0.0, due - time.perf_counter())):
                    return
                self._slow(delay_ms)
                self._times.append(time.perf_counter() - self._edge_at)
        except Exception as error:
            self._error = error

    def end(self) -> None:
        """The fault, too, if the load did not live to see its end."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            if len(self._times) == 1:
                self._slow(0.0)

    def times(self) -> tuple[float, float]:
        """When it began and ended, in seconds of the measured time."""
        if self._error is not None:
            raise self._error
        begun, ended = self._times
        return begun, ended


def rate_between(sample: Sample, begin: float, end: float) -> float:
    """Requests per second, from the slices that lie within."""
    inside = [
        each
        for each in sample.series
        if begin <= each.at_seconds and each.at_seconds + each.slice_seconds <= end
    ]
    seconds = sum(each.slice_seconds for each in inside)
    return sum(each.requests for each in inside) / seconds if seconds else 0.0
