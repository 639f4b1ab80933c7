"""A learner gets everything and decides nothing."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Learners(Experiment):
    name = "learners"
    question = "What do learners, which get every entry but have no vote, cost the others?"
    variables = (
        Variable(name="learners", values=(0, 1, 2), quick=(0, 1), about="learners besides three members"),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="learners", lines=("clients",), ideal="flat"),
        Plot(
            kind="scaling", x="learners", lines=("clients",), y="latency_ms_p50", y_label="p50 of a put, ms"
        ),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(learners=int(point["learners"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
