"""Every event goes to everybody who watches."""

from __future__ import annotations

from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Variable


class Watchers(Experiment):
    name = "watchers"
    question = "How many events a second reach their watchers, and how soon, from 1 to 1,000 watchers?"
    variables = (
        Variable(name="watchers", values=(1, 10, 100, 1000), quick=(10, 100), about="watchers"),
        Variable(name="writers", values=(1, 16), quick=(1,), about="writers"),
    )
    plots = (
        Plot(
            kind="scaling",
            x="watchers",
            lines=("writers",),
            y_label="events delivered per second",
            ideal="linear",
            logarithmic=True,
        ),
        Plot(
            kind="scaling",
            x="watchers",
            lines=("writers",),
            y="latency_ms_p50",
            y_label="p50 from put to event, ms",
            logarithmic=True,
        ),
        Plot(kind="percentiles", lines=("watchers", "writers")),
    )
    caption = "A writer's next put waits until all watchers have the last one: nobody can fall behind."

    def load(self, point: PointValues) -> dict[str, Any]:
        return {
            "workload": "watch",
            "clients": int(point["writers"]),
            "watchers": int(point["watchers"]),
            "keys": 1_000,
        }
