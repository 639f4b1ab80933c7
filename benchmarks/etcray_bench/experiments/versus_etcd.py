"""etcray beside a real etcd: the same loads in turns, and the bar that etcray is to clear."""

from __future__ import annotations

from typing import Any, Final

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.experiments.failover import measure_failover
from etcray_bench.results.records import Sample
from etcray_bench.systems.spec import ETCD, SystemSpec
from etcray_bench.systems.system import System

SMALL_STORE: Final = 10_000
LARGE_STORE: Final = 1_000_000

LOADS: Final = (
    "put-1",
    "put-64",
    "put-256",
    "put-1024",
    "range-64",
    "range-256",
    "serializable-range-256",
    "txn-64",
    "txn-256",
)
FAILOVER: Final = "failover"
KILLS: Final = 50
LONG_LOADS: Final = ("put-256-1M-keys", FAILOVER)
"""Not run unless they are asked for: writing the keys, and killing often enough, take minutes each."""


class VersusEtcd(Experiment):
    name = "versus-etcd"
    command = "versus-etcd"
    question = "How does etcray compare with a three-member etcd on the same machine, under the same loads?"
    variables = (
        Variable(name="load", values=LOADS, quick=("put-1", "put-64", "range-64"), about="load", others=True),
        Variable(
            name="system",
            values=("etcd", "etcray ray"),
            quick=("etcd", "etcray ray"),
            about="system and transport",
            in_turns=True,
            others=True,
        ),
    )
    plots = (
        Plot(kind="ratios", x="load", lines=("system",)),
        Plot(kind="percentiles", lines=("system",)),
    )
    quick_repetitions = 2
    needs_etcd = True
    caption = "Values of 256 bytes. Both clusters are up all the time, and are loaded in turns."

    def repetitions_of(self, point: PointValues, settings: Settings) -> int:
        """A median of pauses needs more of them than one of rates."""
        if point["load"] == FAILOVER and not settings.quick:
            return KILLS
        return settings.repetitions

    def spec(self, point: PointValues) -> SystemSpec:
        system, _, transport = str(point["system"]).partition(" ")
        keys = LARGE_STORE if str(point["load"]).endswith("-1M-keys") else 0
        if system == ETCD:
            return SystemSpec(system=ETCD, preload_keys=keys)
        return SystemSpec(transport=transport, preload_keys=keys)

    def load(self, point: PointValues) -> dict[str, Any]:
        workload, clients = parse_load(str(point["load"]))
        return {"workload": workload, "clients": clients, "keys": SMALL_STORE}

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        if point["load"] == FAILOVER:
            return measure_failover(system, settings, tell)
        return super().measure(system, point, repetition, settings, tell)

    def parse_loads(self, text: str) -> tuple[str, ...]:
        """Names with commas between, or all. Raises LaboratoryError."""
        if text == "all":
            return (*LOADS, *LONG_LOADS)
        chosen = tuple(part.strip() for part in text.split(",") if part.strip())
        unknown = [name for name in chosen if name not in (*LOADS, *LONG_LOADS)]
        if unknown or not chosen:
            known = ", ".join((*LOADS, *LONG_LOADS))
            raise LaboratoryError(f"there is no load {', '.join(unknown) or 'given'}; there are {known}")
        return chosen


def parse_load(name: str) -> tuple[str, int]:
    """`put-256-1M-keys` is ("put", 256)."""
    workload, _, clients = name.removesuffix("-1M-keys").rpartition("-")
    return workload, int(clients)
