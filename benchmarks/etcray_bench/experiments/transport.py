"""Members and gateways talk by Ray calls, or over a stream of their own."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Transport(Experiment):
    name = "transport"
    question = "What does messaging by Ray calls cost, compared with a direct stream?"
    variables = (
        Variable(
            name="transport",
            values=("ray", "direct"),
            quick=("ray", "direct"),
            about="transport",
            in_turns=True,
        ),
        Variable(name="workload", values=("put", "range"), quick=("put",), about="workload"),
        Variable(name="clients", values=(1, 16, 64, 256, 1024), quick=(1, 64), about="clients"),
    )
    plots = (
        Plot(kind="tradeoff", x="clients", lines=("transport",)),
        Plot(kind="bars", x="clients", lines=("transport",)),
        Plot(kind="percentiles", lines=("transport",)),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(transport=str(point["transport"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": str(point["workload"]), "clients": int(point["clients"])}
