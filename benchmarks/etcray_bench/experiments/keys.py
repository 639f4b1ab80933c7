"""Does a full store serve as fast as an empty one?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Keys(Experiment):
    name = "keys"
    question = "How fast are puts and ranges with 10,000 to 1,000,000 keys in the store?"
    variables = (
        Variable(
            name="keys",
            values=(10_000, 100_000, 1_000_000),
            quick=(1_000, 10_000),
            about="keys in the store",
            in_turns=True,
        ),
        Variable(name="workload", values=("put", "range"), quick=("put",), about="workload"),
        Variable(name="clients", values=(256,), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="keys", lines=("workload", "clients"), ideal="flat", logarithmic=True),
        Plot(
            kind="scaling",
            x="keys",
            lines=("workload", "clients"),
            y="latency_ms_p99",
            y_label="p99, ms",
            logarithmic=True,
        ),
    )
    caption = "The load's own keys are few and come besides; values have 256 bytes."

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(preload_keys=int(point["keys"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": str(point["workload"]), "clients": int(point["clients"])}
