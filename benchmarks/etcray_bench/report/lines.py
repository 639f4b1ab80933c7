"""Samples as lines of points, by what a plot wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from etcray_bench.experiments.experiment import Plot, shown
from etcray_bench.results.records import Point, Run, Sample, Value


@dataclass(frozen=True, slots=True)
class Mark:
    """One point on a line: a value of x, and what every repetition found there."""

    x: Value
    values: tuple[float, ...]
    samples: tuple[Sample, ...]

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Line:
    """Marks in the order of x."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """What is drawn into one pair of axes."""

    name: str
    """The values that all of it has in common, of variables that are varied; may be empty."""
    lines: tuple[Line, ...]

    @property
    def marks(self) -> list[Mark]:
        return [mark for line in self.lines for mark in line.marks]


def measure(sample: Sample, name: str) -> float | None:
    """A rate, a latency or a figure; None if the sample has none of that name."""
    if name.startswith("latency_ms_"):
        return sample.latency_ms.get(name.removeprefix("latency_ms_"))
    if name == "requests_per_second":
        return sample.requests_per_second if sample.requests else None
    return sample.figures.get(name)


def panels(run: Run, plot: Plot) -> list[Panel]:
    """Each combination of values of the varied variables that the plot does not name has its own panel."""
    done = [point for point in run.points if point.samples]
    varied = [name for name in names_of(done) if len({point.variables[name] for point in done}) > 1]
    apart = [name for name in varied if name != plot.x and name not in plot.lines]
    in_lines = [name for name in plot.lines if name in varied]
    found: dict[str, dict[str, list[Mark]]] = {}
    for point in done:
        pairs = [(sample, measure(sample, plot.y)) for sample in point.samples]
        kept = [(sample, value) for sample, value in pairs if value is not None]
        if kept:
            values = tuple(value for _, value in kept)
            mark = Mark(point.variables.get(plot.x, ""), values, tuple(sample for sample, _ in kept))
            lines = found.setdefault(label(point.variables, apart), {})
            lines.setdefault(label(point.variables, in_lines), []).append(mark)
    return [
        Panel(name, tuple(Line(line, tuple(in_order(marks))) for line, marks in lines.items()))
        for name, lines in found.items()
    ]


def in_order(marks: Sequence[Mark]) -> list[Mark]:
    """Numbers by size; words as they come."""
    if all(isinstance(mark.x, int | float) for mark in marks):
        return sorted(marks, key=lambda mark: float(mark.x))
    return list(marks)


def names_of(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.variables))


def label(variables: Mapping[str, Value], names: Sequence[str]) -> str:
    """`put, clients 64`: words say by themselves what they are."""
    parts = []
    for name in names:
        value = variables.get(name)
        if isinstance(value, str):
            parts.append(value)
        elif value is not None:
            parts.append(f"{name.replace('_', ' ')} {shown(value)}")
    return ", ".join(parts)
