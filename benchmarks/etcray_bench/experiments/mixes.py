"""Loads like those of real users."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable

MIXES = tuple(f"ycsb-{letter}" for letter in "abcdef")


class Mixes(Experiment):
    name = "mixes"
    question = "How fast are the mixes of YCSB, and one like that of Kubernetes?"
    variables = (
        Variable(
            name="workload",
            values=(*MIXES, "kubernetes"),
            quick=("ycsb-a", "kubernetes"),
            about="mix of operations",
        ),
        Variable(name="clients", values=(64,), quick=(16,), about="clients"),
    )
    plots = (
        Plot(kind="bars", x="workload", lines=("clients",)),
        Plot(kind="percentiles", lines=("workload",)),
    )

    def load(self, point: PointValues) -> dict[str, Any]:
        workload = str(point["workload"])
        return {"workload": workload, "clients": int(point["clients"])}
