"""The history follows every revision, in a process of its own. Do the members' clients notice?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class HistoryActor(Experiment):
    name = "history"
    question = "What does it cost the puts that a history actor follows them?"
    variables = (
        Variable(
            name="history",
            values=(True, False),
            quick=(True, False),
            about="with the history actor",
            in_turns=True,
        ),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="bars", x="clients", lines=("history",)),
        Plot(kind="percentiles", lines=("history",)),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(history=bool(point["history"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
