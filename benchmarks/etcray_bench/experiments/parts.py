"""The parts of a put, each by itself: below their sum no cluster that is made of them can come."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Final

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.parts import PARTS
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.system import SystemFailedError

SECONDS_MAX: Final = 120.0
"""Besides the measured ones: Ray has to start."""


class Parts(Experiment):
    name = "parts"
    question = "What do a sync, an append to the log, an apply and Ray calls cost by themselves?"
    variables = (
        Variable(name="part", values=tuple(PARTS), quick=("log append", "Ray path"), about="part of a put"),
        Variable(name="puts", values=(1, 64, 256), quick=(1,), about="puts in a batch"),
    )
    plots = (
        Plot(kind="bars", x="part", lines=("puts",), y="cpu_us", y_label="us of CPU in all processes"),
        Plot(kind="bars", x="part", lines=("puts",), y="latency_us", y_label="us until it is done"),
    )
    seconds = 3.0
    quick_seconds = 1.0
    measures_alone = True
    caption = (
        "Sync: 4 KiB to a file. Log append: an entry with the batch, durable. Apply: the same to memory, and "
        "its rows to the tables every 64 entries. Ray path: an actor is called with it, calls two others "
        "in turn, and answers when one of them has answered."
    )

    def makes_sense(self, point: PointValues) -> bool:
        return point["part"] != "sync" or point["puts"] == 1

    def measure_alone(self, point: PointValues, settings: Settings, tell: Teller) -> Sample:
        started_at = now()
        tell(f"{point['part']}, {point['puts']} puts")
        with tempfile.TemporaryDirectory(prefix="parts-", dir=settings.directory) as directory:
            command = [sys.executable, "-m", "etcray_bench.parts"]
            arguments = [str(point["part"]), str(point["puts"]), str(settings.seconds), directory]
            done = subprocess.run(
                [*command, *arguments],
                capture_output=True,
                text=True,
                timeout=settings.seconds + SECONDS_MAX,
                start_new_session=True,
            )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SystemFailedError(f"{point['part']} could not be measured: {last}")
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        return Sample(system="etcray", started_at=started_at, seconds=settings.seconds, figures=figures)
