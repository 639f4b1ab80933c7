"""Two results, point by point: what got better or worse, and what of that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.table import Table

from etcray_bench.report.findings import is_time, number
from etcray_bench.report.lines import label, measure
from etcray_bench.results.records import Point, Run, canonical

LEAST_CHANGE: Final = 0.03
"""A smaller one is never called a change: the conditions of two runs are not the same to such a degree."""
MEASURES: Final = ("requests_per_second", "latency_ms_p50", "latency_ms_p99")
SAME: Final = "same"
BETTER: Final = "better"
WORSE: Final = "worse"
UNKNOWN: Final = "one sample"


@dataclass(frozen=True, slots=True)
class Row:
    """One measure at one point."""

    experiment: str
    point: str
    measure: str
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of the medians, after by before."""
        return median(self.after) / median(self.before)

    @property
    def ratio_low(self) -> float:
        return min(self.after) / max(self.before)

    @property
    def ratio_high(self) -> float:
        return max(self.after) / min(self.before)

    @property
    def verdict(self) -> str:
        if len(self.before) < 2 or len(self.after) < 2:
            return UNKNOWN
        widest = max(max(values) - min(values) for values in (self.before, self.after))
        difference = abs(median(self.after) - median(self.before))
        overlap = self.ratio_low <= 1 <= self.ratio_high
        if overlap or difference <= widest or abs(self.ratio - 1) < LEAST_CHANGE:
            return SAME
        return BETTER if (self.ratio < 1) == is_time(self.measure) else WORSE


@dataclass(frozen=True, slots=True)
class Comparison:
    rows: tuple[Row, ...]
    only_before: tuple[str, ...]
    """Points that the other does not have."""
    only_after: tuple[str, ...]
    differences: tuple[str, ...]
    """Of the environments: what else may be the cause."""


def compare(before: Sequence[Run], after: Sequence[Run]) -> Comparison:
    """Points are the same if experiment and variables are."""
    first, second = by_key(before), by_key(after)
    rows = []
    for key in (key for key in first if key in second):
        old, new = first[key], second[key]
        measures = [*MEASURES, *(name for name in figures_of(old) if name in figures_of(new))]
        for name in measures:
            pair = (values(old, name), values(new, name))
            if all(pair) and min(min(pair[0]), min(pair[1])) > 0:
                rows.append(Row(key[0], name_of(old), name, *pair))
    return Comparison(
        rows=tuple(rows),
        only_before=tuple(f"{key[0]}: {name_of(first[key])}" for key in first if key not in second),
        only_after=tuple(f"{key[0]}: {name_of(second[key])}" for key in second if key not in first),
        differences=tuple(environment_differences(before[-1], after[-1])),
    )


def by_key(runs: Sequence[Run]) -> dict[tuple[str, str], Point]:
    """The points that have samples; of points that several runs have, the newest one's."""
    return {
        (run.experiment, canonical(point.variables)): point
        for run in runs
        for point in run.points
        if point.samples
    }


def name_of(point: Point) -> str:
    return label(point.variables, list(point.variables))


def figures_of(point: Point) -> list[str]:
    return list(dict.fromkeys(name for sample in point.samples for name in sample.figures))


def values(point: Point, name: str) -> tuple[float, ...]:
    found = (measure(sample, name) for sample in point.samples)
    return tuple(value for value in found if value is not None)


def environment_differences(before: Run, after: Run) -> list[str]:
    old, new = before.environment, after.environment
    pairs = {
        "commit": (old.commit, new.commit),
        "cpu": (f"{old.cpus} x {old.cpu_model}", f"{new.cpus} x {new.cpu_model}"),
        "kernel": (old.kernel, new.kernel),
        **{
            name: (old.versions.get(name, "none"), new.versions.get(name, "none"))
            for name in dict.fromkeys([*old.versions, *new.versions])
        },
    }
    return [f"{name}: {first} -> {second}" for name, (first, second) in pairs.items() if first != second]


def summary(comparison: Comparison) -> str:
    """In one sentence, and what the two do not have in common."""
    verdicts = [row.verdict for row in comparison.rows]
    counted = {verdict: verdicts.count(verdict) for verdict in (BETTER, WORSE, SAME, UNKNOWN)}
    parts = [
        f"{counted[BETTER]} better, {counted[WORSE]} worse, {counted[SAME]} the same within noise",
        *([f"{counted[UNKNOWN]} with too few samples to say"] if counted[UNKNOWN] else []),
    ]
    lines = [f"{len(comparison.rows)} figures: {', '.join(parts)}."]
    for which, points in (("first", comparison.only_before), ("second", comparison.only_after)):
        if points:
            lines.append(f"Only in the {which}: {len(points)} points.")
    lines += comparison.differences
    return "\n".join(lines)


HEADINGS: Final = ("experiment", "point", "measure", "before", "after", "ratio", "spread", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.experiment,
        row.point,
        row.measure,
        number(median(row.before)),
        number(median(row.after)),
        f"{row.ratio:.2f}",
        f"{row.ratio_low:.2f}-{row.ratio_high:.2f}",
        row.verdict,
    )


def table(comparison: Comparison) -> Table:
    """Changes first, and of those the largest."""
    found = Table(title="after by before: medians, and the lowest and highest ratio of single repetitions")
    for heading in HEADINGS:
        found.add_column(heading, justify="left" if heading in HEADINGS[:3] else "right", overflow="fold")
    for row in in_order(comparison.rows):
        style = {BETTER: "green", WORSE: "red"}.get(row.verdict, "")
        found.add_row(*cells(row), style=style)
    return found


def in_order(rows: Sequence[Row]) -> list[Row]:
    rank = {WORSE: 0, BETTER: 1, SAME: 2, UNKNOWN: 3}
    return sorted(rows, key=lambda row: (rank[row.verdict], -abs(row.ratio - 1)))
