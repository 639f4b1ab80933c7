"""One load on one system, as a sample."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from etcray_bench.load import Load, LoadResult, Progress, run_load
from etcray_bench.results.records import RoleUse, Sample, Slice
from etcray_bench.systems.system import System


def measure_load(
    system: System,
    fields: Mapping[str, Any],
    *,
    seconds: float,
    warmup_seconds: float,
    tell: Callable[[str], None] = lambda doing: None,
    on_edge: Callable[[], None] = lambda: None,
) -> Sample:
    """Run and check it. Raises LoadError. `on_edge` is called at the first and at the last moment of the
    measured time, if the load is driven from here."""
    load = Load(endpoints=system.endpoints, seconds=seconds, warmup_seconds=warmup_seconds, **fields)
    system.look()
    edges: list[Mapping[str, RoleUse]] = []
    indexes: list[int] = []

    def at_edge() -> None:
        edges.append(system.usage())
        indexes.append(system.log_index())
        on_edge()

    def hear(progress: Progress) -> None:
        rate = f", {progress.operations_per_second:,.0f}/s" if progress.phase == "run" else ""
        tell(f"{progress.phase} {progress.seconds:.0f} of {progress.of_seconds:.0f} s{rate}")

    distributed = system.run_distributed(load)
    if distributed is not None:
        result, edges = distributed
    else:
        result = run_load(load, at_edge, hear)
    entries = indexes[-1] - indexes[0] if indexes else 0
    return replace(sample_of(system.name, result), roles=used_between(edges), log_entries=entries)


def used_between(edges: list[Mapping[str, RoleUse]]) -> dict[str, RoleUse]:
    """CPU time between the two, and memory at the second one."""
    before, after = edges
    return {
        role: replace(use, cpu_seconds=max(0.0, use.cpu_seconds - before[role].cpu_seconds))
        for role, use in after.items()
        if role in before
    }


def sample_of(system: str, result: LoadResult) -> Sample:
    """What the generator says of a load; all but what the servers did meanwhile."""
    latency, series = result.latency, result.series
    slices = tuple(
        Slice(
            at_seconds=number * series.slot_seconds,
            slice_seconds=series.slot_seconds,
            requests=count,
            failures=failures,
            latency_ms_max=worst if count else None,
        )
        for number, (count, failures, worst) in enumerate(
            zip(series.completions, series.failures, series.worst_ms, strict=True)
        )
    )
    timed = latency.count > 0
    shares = {
        "p50": latency.p50_ms,
        "p90": latency.p90_ms,
        "p99": latency.p99_ms,
        "p999": latency.p999_ms,
        "max": latency.max_ms,
    }
    return Sample(
        system=system,
        started_at=datetime.fromtimestamp(result.started_at, UTC).replace(tzinfo=None),
        seconds=result.seconds,
        requests=result.operations,
        failures=sum(result.failures.values()),
        first_failure=next(iter(result.failures), ""),
        requests_per_second=result.operations_per_second,
        latency_ms=shares if timed else {},
        generator_cpu_seconds=result.generator_cpu_seconds,
        histogram=base64.b64decode(latency.histogram) if timed else None,
        series=slices,
    )
