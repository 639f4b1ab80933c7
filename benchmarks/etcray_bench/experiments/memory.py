"""All current values are in memory, at every member. How much is that?"""

from __future__ import annotations

from typing import Final

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.processes import resident_bytes
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System, SystemFailedError

MIB: Final = 2**20


class Memory(Experiment):
    name = "memory"
    question = "How much memory does a member need for the keys that it holds?"
    variables = (
        Variable(
            name="keys", values=(0, 10_000, 100_000, 1_000_000), quick=(0, 10_000), about="keys of 256 bytes"
        ),
        Variable(
            name="system", values=("etcray", "etcd"), quick=("etcray", "etcd"), about="system", in_turns=True
        ),
    )
    plots = (
        Plot(
            kind="scaling",
            x="keys",
            lines=("system",),
            y="member_resident_mib",
            y_label="MiB resident in the largest member",
        ),
    )
    repetitions = 1
    needs_etcd = True
    caption = "Measured right after the keys were written, so what writing them needs is in it."

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(system=str(point["system"]), preload_keys=int(point["keys"]))

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        system.look()
        sizes = [resident_bytes(process) for process in system.member_processes()]
        if not sizes or not min(sizes):
            raise SystemFailedError("a member's memory cannot be read: its process runs on another machine")
        return Sample(
            system=system.name,
            started_at=now(),
            seconds=0.0,
            roles=system.usage(),
            figures={
                "member_resident_mib": max(sizes) / MIB,
                "member_resident_mib_least": min(sizes) / MIB,
            },
        )
