"""What came out of a load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from etcray_bench.load.check import Checked
from etcray_bench.load.latency import Latency
from etcray_bench.load.options import Load
from etcray_bench.load.recorder import SLOT_SECONDS, Recording

Key = TypeVar("Key")


class OperationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of operations."""

    count: int
    latency: Latency
    service_time: Latency


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """How it went on, slot by slot, from the first measured moment."""

    slot_seconds: float
    completions: list[int]
    worst_ms: list[float]
    """Of those that were completed in the slot; 0 if none was."""
    failures: list[int]


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one run. A run whose check failed has no result, but raised CheckFailedError."""

    load: Load
    started_at: float
    """The first measured moment, in seconds since 1970."""
    started_monotonic: float
    """The same by perf_counter of this machine."""
    seconds: float
    operations: int
    """Completed within the measured time."""
    requests: int
    """Answered within it. Some operations need several."""
    latency: Latency
    """Of all operations (for watch: of the deliveries), from when they were meant to begin: in an open loop
    that is the schedule's moment, which corrects for coordinated omission; else it is when they began."""
    service_time: Latency
    """From when they began."""
    by_operation: dict[str, OperationResult]
    series: Series
    failures: dict[str, int]
    """By what was said, in the whole run."""
    conflicts: int
    """Guarded writes that lost a race."""
    unstarted: int
    """An open loop's operations that never had a client; they count with the time that they waited."""
    connections_lost: int
    generator_cpu_seconds: float
    """Of all generator processes, within the measured time."""
    checked: Checked

    @property
    def operations_per_second(self) -> float:
        return self.operations / self.seconds

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def latency_ms(self) -> dict[str, float]:
        found = self.latency
        return {
            "p50": found.p50_ms,
            "p90": found.p90_ms,
            "p99": found.p99_ms,
            "p99.9": found.p999_ms,
            "max": found.max_ms,
        }

    @property
    def generator_cpu_us_per_request(self) -> float:
        return self.generator_cpu_seconds / max(1, self.requests) * 1e6

    @property
    def keys_checked(self) -> int:
        return self.checked.keys

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def first_failure(self) -> str | None:
        return next(iter(self.failures), None)


def together(load: Load, recordings: Sequence[Recording], checked: Checked, conflicts: int) -> LoadResult:
    """One result of what several processes noted at the same time."""
    names = sorted({name for recording in recordings for name in recording.latencies})
    by_operation = {}
    for name in names:
        latency = Latency.of(_added(recording.latencies.get(name, {}) for recording in recordings))
        service = latency
        if load.rate is not None:
            service = Latency.of(_added(recording.services.get(name, {}) for recording in recordings))
        by_operation[name] = OperationResult(count=latency.count, latency=latency, service_time=service)
    counted = [by_operation[name] for name in names if (load.workload, name) != ("watch", "put")]
    slots = max(len(recording.completions) for recording in recordings)
    return LoadResult(
        load=load,
        started_at=min(recording.started_at for recording in recordings),
        started_monotonic=min(recording.started_monotonic for recording in recordings),
        seconds=max(recording.seconds for recording in recordings),
        operations=sum(sum(recording.completions) for recording in recordings),
        requests=sum(recording.requests for recording in recordings),
        latency=Latency.merged(result.latency for result in counted),
        service_time=Latency.merged(result.service_time for result in counted),
        by_operation=by_operation,
        series=Series(
            slot_seconds=SLOT_SECONDS,
            completions=[sum(_at(each.completions, slot) for each in recordings) for slot in range(slots)],
            worst_ms=[
                1e3 * max(each.worst_seconds[slot] for each in recordings if slot < len(each.worst_seconds))
                for slot in range(slots)
            ],
            failures=[sum(_at(each.failed, slot) for each in recordings) for slot in range(slots)],
        ),
        failures=_added(recording.failures for recording in recordings),
        conflicts=conflicts,
        unstarted=sum(recording.unstarted for recording in recordings),
        connections_lost=sum(recording.connections_lost for recording in recordings),
        generator_cpu_seconds=sum(recording.cpu_seconds for recording in recordings),
        checked=checked,
    )


def _at(numbers: Sequence[int], slot: int) -> int:
    return numbers[slot] if slot < len(numbers) else 0


def _added(many: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    whole: dict[Key, int] = {}
    for counts in many:
        for key, count in counts.items():
            whole[key] = whole.get(key, 0) + count
    return whole
