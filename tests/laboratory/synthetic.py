"""Made-up measurements: their medians are known, so what is drawn and compared can be checked."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from etcray_bench.results.records import (
    Environment,
    Event,
    Plan,
    Point,
    RoleUse,
    Sample,
    Slice,
    Value,
    Variables,
)
from etcray_bench.results.store import ResultsWriter

AT = datetime(2026, 3, 1, 12, 0, 0)

ENVIRONMENT = Environment(
    commit="0123456789ab",
    cpu_model="A Processor",
    cpus=2,
    memory_bytes=2**33,
    kernel="Linux 6.1 x86_64",
    load_average=0.25,
    versions={"python": "3.11.0", "etcd": "3.5.1"},
)


def histogram_of(milliseconds: float, count: int = 1000) -> bytes:
    """All requests take so long, but one in a hundred, which takes ten times as long."""
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for number in range(count):
        histogram.record_value(int(milliseconds * 1e3) * (10 if number % 100 == 99 else 1))
    return base64.b64decode(histogram.encode())


def sample(rate: float, milliseconds: float = 2.0, system: str = "etcray", **more: Any) -> Sample:
    """One with everything that a load has."""
    return Sample(
        system=system,
        started_at=AT,
        seconds=5.0,
        requests=int(rate * 5),
        requests_per_second=rate,
        latency_ms={
            "p50": milliseconds,
            "p90": milliseconds,
            "p99": milliseconds * 10,
            "p999": milliseconds * 10,
            "max": milliseconds * 10,
        },
        histogram=histogram_of(milliseconds),
        roles={
            "leader": RoleUse(processes=1, cpu_seconds=2.5, resident_bytes=300 * 2**20),
            "followers": RoleUse(processes=2, cpu_seconds=3.5, resident_bytes=500 * 2**20),
        },
        generator_cpu_seconds=0.5,
        log_entries=500,
        **more,
    )


def killed(pause_ms: float, system: str = "etcray") -> Sample:
    """A timeline of five seconds with nobody served for so long after the first one."""
    slices = tuple(
        Slice(
            at_seconds=number * 0.05,
            slice_seconds=0.05,
            requests=0 if 1.0 <= number * 0.05 < 1.0 + pause_ms / 1e3 else 40,
            latency_ms_max=3.5,
        )
        for number in range(100)
    )
    return Sample(
        system=system,
        started_at=AT,
        seconds=5.0,
        requests=3000,
        requests_per_second=600.0,
        series=slices,
        events=(Event(at_seconds=1.0, name="SIGKILL", detail="the leader's process"),),
        figures={"pause_ms": pause_ms},
    )


def point(variables: Variables, samples: Sequence[Sample], error: str = "") -> Point:
    return Point(
        variables=variables,
        error=error,
        started_at=AT,
        finished_at=AT,
        load_average=0.5,
        samples=tuple(samples),
    )


def plan(experiment: str, values: Mapping[str, tuple[Value, ...]], **more: Any) -> Plan:
    fields = {"repetitions": 3, "seconds": 5.0, "warmup_seconds": 1.0, "quick": False, **more}
    return Plan(experiment=experiment, values=values, **fields)


def write_run(
    path: Path,
    experiment: str,
    points: Sequence[Variables],
    samples_of: Callable[[Variables], Sequence[Sample]],
    *,
    environment: Environment = ENVIRONMENT,
) -> int:
    """A finished run with these points; returns its number."""
    values = {name: tuple(dict.fromkeys(each[name] for each in points)) for name in points[0]}
    writer = ResultsWriter.begin(path, plan(experiment, values), environment, fresh=True)
    writer.add_points(point(each, samples_of(each)) for each in points)
    writer.finish()
    return writer.run_id
