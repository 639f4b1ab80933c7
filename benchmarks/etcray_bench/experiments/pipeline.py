"""A leader need not wait for the answer to one append before it sends the next."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Pipeline(Experiment):
    name = "pipeline"
    question = "How many appends to one peer should be under way at once?"
    variables = (
        Variable(name="appends_in_flight", values=(1, 2, 4, 16), quick=(1, 16), about="appends under way"),
        Variable(name="clients", values=(1, 64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="appends_in_flight", lines=("clients",), logarithmic=True),
        Plot(
            kind="scaling",
            x="appends_in_flight",
            lines=("clients",),
            y="latency_ms_p50",
            y_label="p50 of a put, ms",
            logarithmic=True,
        ),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(tune=(("appends_in_flight", int(point["appends_in_flight"])),))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
