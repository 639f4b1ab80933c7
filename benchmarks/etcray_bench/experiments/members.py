"""More members survive more failures. What do they cost?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import LATENCY_PLOTS, Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Members(Experiment):
    name = "members"
    question = "How many puts does a cluster of 1, 3, 5 or 7 members take, and how long does one take?"
    variables = (
        Variable(name="members", values=(1, 3, 5, 7), quick=(1, 3), about="members"),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="members", lines=("clients",), ideal="flat"),
        *(
            Plot(
                kind="scaling", x="members", lines=("clients",), y=share, y_label=f"{share[11:]} of a put, ms"
            )
            for share in LATENCY_PLOTS
        ),
    )
    caption = (
        "Every member stores everything: more members cannot be faster, and the ideal is not to be slower."
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(members=int(point["members"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
