"""The first question about any store: what does it do under load?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable


class Clients(Experiment):
    name = "clients"
    question = "How do throughput and latency change from 1 to 1,024 clients?"
    variables = (
        Variable(name="workload", values=("put", "range", "txn"), quick=("put",), about="workload"),
        Variable(name="clients", values=(1, 4, 16, 64, 256, 1024), quick=(1, 16, 64), about="clients"),
    )
    plots = (
        Plot(kind="tradeoff", x="clients", lines=("workload",)),
        Plot(kind="scaling", x="clients", lines=("workload",), ideal="linear", logarithmic=True),
        Plot(kind="percentiles", lines=("clients",)),
    )

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": str(point["workload"]), "clients": int(point["clients"])}
