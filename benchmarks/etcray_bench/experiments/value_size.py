"""Is a store bound by requests or by bytes?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.results.records import Sample
from etcray_bench.systems.system import System


class ValueSize(Experiment):
    name = "value-size"
    question = "From which size of the value on does a put cost more because of its bytes?"
    variables = (
        Variable(
            name="value_bytes",
            values=(32, 256, 1024, 4096, 16384, 65536),
            quick=(32, 4096),
            about="bytes of a value",
        ),
        Variable(name="clients", values=(64,), quick=(64,), about="clients"),
    )
    plots = (
        Plot(kind="scaling", x="value_bytes", lines=("clients",), ideal="flat", logarithmic=True),
        Plot(
            kind="scaling",
            x="value_bytes",
            lines=("clients",),
            y="value_mib_per_second",
            y_label="MiB of values per second",
            logarithmic=True,
        ),
    )

    def load(self, point: PointValues) -> dict[str, Any]:
        size = int(point["value_bytes"])
        return {"workload": "put", "clients": int(point["clients"]), "value_bytes": size, "keys": 2_000}

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        sample = super().measure(system, point, repetition, settings, tell)
        mib = sample.requests_per_second * int(point["value_bytes"]) / 2**20
        return replace(sample, figures={"value_mib_per_second": mib})
