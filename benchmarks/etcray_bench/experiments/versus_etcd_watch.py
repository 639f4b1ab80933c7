"""Watches of etcray beside those of a real etcd: events delivered, and the memory of watchers that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from etcray_bench.experiments.experiment import Experiment, Plot, PointValues, Settings, Teller, Variable
from etcray_bench.load.watch_idle import run_idle
from etcray_bench.results.records import Sample
from etcray_bench.results.store import now
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System

SYSTEM: Final = Variable(
    name="system", values=("etcd", "etcray"), quick=("etcd", "etcray"), about="system", in_turns=True
)
IDLE_STREAMS: Final = 10
SERVING_ROLES: Final = ("gateway", "leader", "followers")


class VersusEtcdWatch(Experiment):
    name = "versus-etcd-watch"
    question = "How many events a second do etcray and etcd deliver to many watchers, and how soon?"
    variables = (
        Variable(name="watchers", values=(100, 1_000), quick=(50,), about="watchers"),
        Variable(name="writers", values=(1, 16), quick=(1,), about="writers"),
        SYSTEM,
    )
    plots = (
        Plot(kind="bars", x="watchers", lines=("system",), y_label="events delivered per second"),
        Plot(
            kind="bars",
            x="watchers",
            lines=("system",),
            y="latency_ms_p50",
            y_label="p50 from put to event, ms",
        ),
        Plot(kind="percentiles", lines=("system",)),
    )
    needs_etcd = True
    caption = "A writer's next put waits until all watchers have the last one: nobody can fall behind."

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(system=str(point["system"]))

    def load(self, point: PointValues) -> dict[str, Any]:
        watchers, writers = int(point["watchers"]), int(point["writers"])
        return {"workload": "watch", "clients": writers, "watchers": watchers, "keys": 1_000}


class IdleWatchers(Experiment):
    name = "idle-watchers"
    question = "How much memory does a watcher need that nothing happens to?"
    variables = (
        Variable(name="watchers", values=(100_000,), quick=(1_000,), about="watchers"),
        SYSTEM,
    )
    plots = (
        Plot(
            kind="bars",
            x="watchers",
            lines=("system",),
            y="bytes_per_watcher",
            y_label="bytes of private memory for each",
        ),
    )
    repetitions = 1
    needs_etcd = True
    caption = "Each has a key of its own; measured on processes that are fresh."

    def spec(self, point: PointValues) -> SystemSpec:
        return SystemSpec(system=str(point["system"]))

    def measure(
        self, system: System, point: PointValues, repetition: int, settings: Settings, tell: Teller
    ) -> Sample:
        system.look()
        started_at = now()

        def memory() -> Mapping[str, int]:
            tell("reading the memory of the servers")
            return {role: size for role, size in system.private_bytes().items() if role in SERVING_ROLES}

        watchers = int(point["watchers"])
        found = run_idle(system.endpoints, watchers, min(IDLE_STREAMS, watchers), lambda: dict(memory()))
        grown = {role: found.bytes_after[role] - before for role, before in found.bytes_before.items()}
        return Sample(
            system=system.name,
            started_at=started_at,
            seconds=watchers / found.created_per_second,
            figures={
                "bytes_per_watcher": sum(grown.values()) / watchers,
                "created_per_second": found.created_per_second,
                **{f"{role}_bytes_per_watcher": size / watchers for role, size in grown.items()},
            },
        )
