"""What an experiment is: a question, its variables, and what to do at one point."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Final

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.measuring import measure_load
from etcray_bench.results.records import Sample, Value
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System

PointValues = Mapping[str, Value]
"""A value for each variable."""

Teller = Callable[[str], None]
"""Hears in a few words what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Something that is varied."""

    name: str
    values: tuple[Value, ...]
    quick: tuple[Value, ...]
    about: str
    """In a few words, with the unit: the label of an axis."""
    in_turns: bool = False
    """Its values are compared with each other: their clusters run side by side, and are measured in turns."""
    others: bool = False
    """Values that are not listed may be chosen, too. Numbers always may."""

    def parse(self, text: str) -> tuple[Value, ...]:
        """`1,3,5` as values. Raises LaboratoryError."""
        return tuple(self._parse_one(part.strip()) for part in text.split(",") if part.strip())

    def _parse_one(self, text: str) -> Value:
        kind = type(self.values[0])
        if kind is bool and text in ("yes", "no"):
            return text == "yes"
        try:
            if kind in (int, float):
                number: int | float = kind(text.replace("_", ""))
                if number >= 0:
                    return number
        except ValueError:
            pass
        if kind is str and (self.others or text in self.values):
            return text
        known = ", ".join(shown(value) for value in self.values)
        raise LaboratoryError(f"{self.name} cannot be {text!r}; the values of this experiment are {known}")


def shown(value: Value) -> str:
    """As a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """How samples are drawn; `report.plots` has a function for each kind."""

    kind: str
    """scaling, tradeoff, percentiles, timeline, distribution or bars."""
    x: str = ""
    """The variable on the horizontal axis."""
    lines: tuple[str, ...] = ()
    """The variables of which each combination of values is a line. Each value of any other variable has a
    plot of its own."""
    y: str = "requests_per_second"
    """A measure: that, latency_ms_p50, ..., or the name of a figure."""
    y_label: str = "requests per second"
    ideal: str = ""
    """linear: proportional to x. flat: no dearer for more of it. Drawn from the first point."""
    logarithmic: bool = False
    """The horizontal axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured, and where."""

    seconds: float
    warmup_seconds: float
    repetitions: int
    quick: bool = False
    address: str = ""
    """Of a running Ray; empty: each cluster has one of its own."""
    etcd: Path | None = None
    """The program to be compared with."""
    directory: Path = field(default_factory=Path)
    """For data of clusters; each gets one below it."""


LATENCY_PLOTS: Final = ("latency_ms_p50", "latency_ms_p99")


class Experiment(ABC):
    """Subclasses declare; the methods are what they may override."""

    name: ClassVar[str]
    question: ClassVar[str]
    """One sentence, with its question mark."""
    variables: ClassVar[tuple[Variable, ...]]
    """Those that need other clusters first."""
    plots: ClassVar[tuple[Plot, ...]]
    repetitions: ClassVar[int] = 3
    quick_repetitions: ClassVar[int] = 1
    seconds: ClassVar[float] = 5.0
    quick_seconds: ClassVar[float] = 2.0
    needs_etcd: ClassVar[bool] = False
    measures_alone: ClassVar[bool] = False
    """It starts what it measures by itself; there is no cluster around it."""
    command: ClassVar[str] = ""
    """If it has a command of its own in place of `run`."""
    caption: ClassVar[str] = ""
    """What a reader of the plots must know besides."""

    def points(self, chosen: Mapping[str, Sequence[Value]], *, quick: bool) -> list[dict[str, Value]]:
        """All combinations; `chosen` has the values of some variables."""
        lists = [chosen.get(v.name) or (v.quick if quick else v.values) for v in self.variables]
        names = [variable.name for variable in self.variables]
        combinations = (dict(zip(names, values, strict=True)) for values in product(*lists))
        return [point for point in combinations if self.makes_sense(point)]

    def makes_sense(self, point: PointValues) -> bool:
        """False for combinations that would say nothing new."""
        return True

    def repetitions_of(self, point: PointValues, settings: Settings) -> int:
        """How often this point is repeated."""
        return settings.repetitions

    def spec(self, point: PointValues) -> SystemSpec:
        """The cluster that the point needs."""
        return SystemSpec()

    def load(self, point: PointValues) -> dict[str, Any]:
        """The fields of its `Load`, besides what the settings say."""
        return {"workload": "put", "clients": 64}

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        """One repetition. Raises what it likes; the point has then failed."""
        return measure_load(
            system,
            self.load(point),
            seconds=settings.seconds,
            warmup_seconds=settings.warmup_seconds,
            tell=tell,
        )

    def measure_alone(self, point: PointValues, settings: Settings, tell: Teller) -> Sample:
        """In place of `measure`, if it `measures_alone`."""
        raise NotImplementedError(f"{self.name} needs a cluster")

    @classmethod
    def variable(cls, name: str) -> Variable:
        """Raises LaboratoryError if there is none of that name."""
        for variable in cls.variables:
            if variable.name == name:
                return variable
        known = ", ".join(variable.name for variable in cls.variables)
        raise LaboratoryError(f"{cls.name} has no variable {name!r}; it has {known}")
