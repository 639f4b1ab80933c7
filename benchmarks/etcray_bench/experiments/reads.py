"""A linearizable read asks a majority whether the leader still leads; a serializable one asks nobody."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Reads(Experiment):
    name = "reads"
    question = "What does it cost a read to be linearizable, in clusters of different sizes?"
    variables = (
        Variable(name="members", values=(1, 3, 5), quick=(3,), about="members"),
        Variable(
            name="workload",
            values=("range", "serializable-range"),
            quick=("range", "serializable-range"),
            about="consistency of the read",
        ),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="bars", x="clients", lines=("workload",)),
        Plot(kind="percentiles", lines=("workload",)),
        Plot(kind="scaling", x="members", lines=("workload", "clients"), ideal="flat"),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(members=int(point["members"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": str(point["workload"]), "clients": int(point["clients"])}
