"""A gateway sends what has gathered as one batch. How large may it be, and how many on their way?"""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable
from etcray_bench.systems.spec import SystemSpec


class Batching(Experiment):
    name = "batching"
    question = "What do batches gain, and how many requests should a gateway put into one?"
    variables = (
        Variable(
            name="batch_requests",
            values=(1, 16, 128, 2048),
            quick=(16, 2048),
            about="requests in a batch at most",
        ),
        Variable(name="batches_in_flight", values=(1, 4), quick=(4,), about="batches under way"),
        Variable(name="clients", values=(64, 256), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="batch_requests", lines=("batches_in_flight", "clients"), logarithmic=True),
        Plot(
            kind="scaling",
            x="batch_requests",
            lines=("batches_in_flight", "clients"),
            y="latency_ms_p99",
            y_label="p99 of a put, ms",
            logarithmic=True,
        ),
    )

    def spec(self, point: PointValues) -> SystemSpec:
        requests, batches = int(point["batch_requests"]), int(point["batches_in_flight"])
        return SystemSpec(tune=(("gateway_batch_requests", requests), ("gateway_batches_in_flight", batches)))

    def load(self, point: PointValues) -> dict[str, Any]:
        return {"workload": "put", "clients": int(point["clients"])}
