"""Gateways hold no state, so there may be many. Do they share the work?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Gateways(Experiment):
    name = "gateways"
    question = "How does the rate of puts and of ranges grow with the number of gateways?"
    variables = (
        Variable(name="gateways", values=(1, 2, 4), quick=(1, 2), about="gateways"),
        Variable(
            name="workload",
            values=("put", "range", "serializable-range"),
            quick=("range",),
            about="workload",
        ),
        Variable(name="clients", values=(256,), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="gateways", lines=("workload", "clients"), ideal="linear"),
        Plot(
            kind="scaling", x="gateways", lines=("workload", "clients"), y="latency_ms_p99", y_label="p99, ms"
        ),
    )
    caption = (
        "The ideal needs as many cores; on a machine that is busy with one gateway it cannot be reached."
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(gateways=int(point["gateways"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": str(point["workload"]), "clients": int(point["clients"])}
