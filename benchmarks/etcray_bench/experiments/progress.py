"""What is shown while a sweep runs: a bar and what is being done on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from etcray_bench.experiments.experiment import PointValues, shown
from etcray_bench.results.records import Point, Sample

LINE_SECONDS: Final = 20.0
"""Without a terminal, what is being done is a line of its own no more often than this."""


class Progress:
    """Shown on standard error: the standard output is for results."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
        self._task = None if self._bar is None else self._bar.add_task("", total=None)
        self._where = ""
        self._told_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self, text: str) -> None:
        """One that stays."""
        self._console.print(text, markup=False)
        self._told_at = time.monotonic()

    def begin(self, points: int, had_before: int) -> None:
        """The number of points, and how many of them need not be measured."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=points, completed=had_before)

    def measuring(self, point: PointValues, repetition: int, repetitions: int) -> None:
        which = f" ({repetition + 1} of {repetitions})" if repetitions > 1 else ""
        self._where = f"{name_of(point)}{which}: "
        self._show("")

    def doing(self, what: str) -> None:
        """What happens right now."""
        if self._bar is None and time.monotonic() - self._told_at > LINE_SECONDS:
            self.line(f"  {self._where}{what}")
        self._show(what)

    def _show(self, what: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._where}{what}")

    def sampled(self, point: PointValues, sample: Sample) -> None:
        self.line(f"{name_of(point)}: {describe(sample)}")

    def point_done(self, point: Point) -> None:
        if point.error:
            self.line(f"{name_of(point.variables)}: FAILED, {point.error}")
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)


def name_of(point: PointValues) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in point.items())


def describe(sample: Sample) -> str:
    """The figures that a sample has, in one line."""
    parts = []
    if sample.requests:
        parts.append(f"{sample.requests_per_second:,.0f}/s")
    parts += [
        f"{share} {sample.latency_ms[share]:.2f} ms" for share in ("p50", "p99") if share in sample.latency_ms
    ]
    parts += [f"{name} {value:,.4g}" for name, value in sample.figures.items()]
    if sample.failures:
        parts.append(f"{sample.failures} FAILED ({sample.first_failure})")
    return ", ".join(parts)
