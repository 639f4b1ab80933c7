"""An acknowledged write is synced on a majority. This is what that costs."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Durability(Experiment):
    name = "durability"
    question = "What would be gained if a write were acknowledged before the disks have synced it?"
    variables = (
        Variable(
            name="durability",
            values=("synced", "written"),
            quick=("synced", "written"),
            about="durability of an acknowledged write",
            in_turns=True,
        ),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="bars", x="clients", lines=("durability",)),
        Plot(kind="percentiles", lines=("durability",)),
    )
    caption = (
        "`written` loses acknowledged writes if a majority of the machines lose power: never for real data."
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(durability=str(point["durability"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
