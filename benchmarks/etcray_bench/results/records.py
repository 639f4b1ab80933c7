"""What is written to a results file and read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Value = int | float | str | bool
"""Of a variable."""

Variables = Mapping[str, Value]


def canonical(variables: Variables) -> str:
    """Equal variables have equal text."""
    return json.dumps(dict(sorted(variables.items())), separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUse:
    """What the processes of one role used within the measured time."""

    processes: int
    cpu_seconds: float
    resident_bytes: int
    """At its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A short time within a sample."""

    at_seconds: float
    """Its beginning, counted from the beginning of the measured time."""
    slice_seconds: float
    requests: int
    failures: int = 0
    latency_ms_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened during a sample."""

    at_seconds: float
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One repetition on one system."""

    system: str
    started_at: datetime
    seconds: float
    requests: int = 0
    failures: int = 0
    first_failure: str = ""
    requests_per_second: float = 0.0
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """By p50, p90, p99, p999 and max; empty if nothing was timed."""
    generator_cpu_seconds: float = 0.0
    log_entries: int = 0
    histogram: bytes | None = None
    roles: Mapping[str, RoleUse] = field(default_factory=dict)
    series: tuple[Slice, ...] = ()
    events: tuple[Event, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    """Named with their units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination of variables, with all of its samples in the order of their repetition."""

    variables: Variables
    error: str
    started_at: datetime
    finished_at: datetime
    load_average: float
    samples: tuple[Sample, ...] = ()

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.variables.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run was asked to do. Only a run of the same plan can be gone on with."""

    experiment: str
    values: Mapping[str, tuple[Value, ...]]
    repetitions: int
    seconds: float
    warmup_seconds: float
    quick: bool
    address: str = ""
    """Of the Ray that is joined; empty: one of its own for each cluster."""
    etcd: str = ""
    """Which etcd it is compared with, if it is."""

    def encode(self) -> str:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["values"] = {name: list(values) for name, values in self.values.items()}
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> Plan:
        plain = json.loads(text)
        plain["values"] = {name: tuple(values) for name, values in plain["values"].items()}
        return cls(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What figures depend on besides the experiment."""

    commit: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    kernel: str
    load_average: float
    versions: Mapping[str, str]
    ray_nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One sweep, as it is in the file."""

    run_id: int
    plan: Plan
    environment: Environment
    started_at: datetime
    finished_at: datetime | None
    points: tuple[Point, ...] = ()

    @property
    def experiment(self) -> str:
        return self.plan.experiment
