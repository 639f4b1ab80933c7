"""Carries out an experiment: which points, in which order, on which clusters; repeated, stored, resumed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from etcray_bench.experiments.experiment import Experiment, Settings
from etcray_bench.experiments.progress import Progress
from etcray_bench.results.environment import load_average
from etcray_bench.results.records import Point, Sample, Value, canonical
from etcray_bench.results.store import ResultsWriter, now
from etcray_bench.systems import starting
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System

PointValues = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one sweep."""

    measured: int
    failed: int
    had_before: int


def batches_of(experiment: Experiment, points: Sequence[PointValues]) -> list[list[PointValues]]:
    """Points that differ only in variables that are taken in turns are measured together."""
    apart = [variable.name for variable in experiment.variables if not variable.in_turns]
    groups: dict[str, list[PointValues]] = {}
    for point in points:
        groups.setdefault(canonical({name: point[name] for name in apart}), []).append(point)
    return list(groups.values())


def sweep(
    experiment: Experiment,
    points: Sequence[PointValues],
    settings: Settings,
    writer: ResultsWriter,
    progress: Progress,
) -> Outcome:
    """Measure the points that the run does not have yet, and finish it. Raises only what stops a sweep:
    KeyboardInterrupt, or ResultsError."""
    measured = failed = 0
    batches = batches_of(experiment, points)
    missing = [[point for point in batch if canonical(point) not in writer.done] for batch in batches]
    had_before = len(points) - sum(map(len, missing))
    progress.begin(len(points), had_before)
    with Clusters(settings, progress.doing) as clusters:
        for batch in (batch for batch in missing if batch):
            found = measure_batch(experiment, batch, settings, clusters, progress)
            writer.add_points(found)
            for point in found:
                progress.point_done(point)
            failed += sum(bool(point.error) for point in found)
            measured += len(found)
    writer.finish()
    return Outcome(measured, failed, had_before)


def measure_batch(
    experiment: Experiment,
    batch: Sequence[PointValues],
    settings: Settings,
    clusters: Clusters,
    progress: Progress,
) -> list[Point]:
    """All points of it, in turns, as often as they are to be repeated. A point that fails is not repeated,
    the others are."""
    started_at, load, begun = now(), load_average(), time.monotonic()
    samples: list[list[Sample]] = [[] for _ in batch]
    errors = [""] * len(batch)
    if not experiment.measures_alone:
        clusters.want([experiment.spec(point) for point in batch])
    wanted = [experiment.repetitions_of(point, settings) for point in batch]
    for repetition in range(max(wanted)):
        for number, point in enumerate(batch):
            if errors[number] or repetition >= wanted[number]:
                continue
            progress.measuring(point, repetition, wanted[number])
            try:
                if experiment.measures_alone:
                    sample = experiment.measure_alone(point, settings, progress.doing)
                else:
                    system = clusters.get(experiment.spec(point))
                    sample = experiment.measure(system, point, repetition, settings, progress.doing)
            except Exception as error:
                errors[number] = f"{type(error).__name__}: {error}"
                if not experiment.measures_alone:
                    clusters.discard(experiment.spec(point))
                continue
            samples[number].append(sample)
            progress.sampled(point, sample)
    assert time.monotonic() >= begun, "a monotonic clock went back"
    return [
        Point(
            variables=point,
            error=errors[number],
            started_at=started_at,
            finished_at=now(),
            load_average=load,
            samples=tuple(samples[number]),
        )
        for number, point in enumerate(batch)
    ]


class Clusters(AbstractContextManager["Clusters"]):
    """Those that run now, by their specs. At most those of one batch do."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self.settings = settings
        self._tell = tell
        self._running: dict[SystemSpec, tuple[System, Path]] = {}

    def want(self, specs: Sequence[SystemSpec]) -> None:
        """Stop those that are not among these, so that they take nothing from those that are."""
        for spec in [spec for spec in self._running if spec not in specs]:
            self.discard(spec)

    def get(self, spec: SystemSpec) -> System:
        """Started if it does not run. Raises SystemFailedError."""
        if spec not in self._running:
            self._tell(f"starting {spec.name}")
            directory = Path(tempfile.mkdtemp(prefix="experiment-", dir=self.settings.directory))
            try:
                system = starting.start(
                    spec, directory, etcd=self.settings.etcd, address=self.settings.address
                )
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
            self._running[spec] = (system, directory)
            if spec.preload_keys:
                self._tell(f"writing {spec.preload_keys:,} keys")
                try:
                    system.preload()
                except BaseException:
                    self.discard(spec)
                    raise
        return self._running[spec][0]

    def discard(self, spec: SystemSpec) -> None:
        """Stop it and remove its data, if it runs."""
        if spec in self._running:
            self._tell(f"stopping {spec.name}")
            system, directory = self._running.pop(spec)
            try:
                system.stop()
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for spec in list(self._running):
            self.discard(spec)
