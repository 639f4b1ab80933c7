"""The same watches on a real etcd and on etcray, side by side.

    python -m etcray_bench.watch_versus_etcd --rounds 3 --seconds 5

Both clusters have three members on this machine; the loads go etcd, etcray, etcd, etcray ... as in
`versus_etcd`. The memory of idle watchers is measured first, and once, on processes that are fresh.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from etcray_bench.etcd import find_etcd
from etcray_bench.load import Load, LoadResult, run_load
from etcray_bench.load.watch_idle import IdleResult, run_idle
from etcray_bench.processes import sample, sample_memory
from etcray_bench.systems import Etcd, Etcray, System
from etcray_bench.versus_etcd import environment, spread

PAUSE_SECONDS: Final = 1.0
"""After each load: the servers notice that its connections are gone."""
SYSTEMS: Final = ("etcd", "etcray")
ROLES: Final = ("gateway", "leader", "followers")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRun:
    """One load on one system."""

    system: str
    result: LoadResult
    cpu_seconds: dict[str, float]
    """By process group, within the measured time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRun:
    """Idle watchers on one system."""

    system: str
    result: IdleResult

    def bytes_per_watcher(self, role: str) -> float:
        result = self.result
        return (result.bytes_after[role] - result.bytes_before[role]) / result.watchers


def run_on(system: System, load: Load) -> WatchRun:
    groups = system.process_groups()
    edges: list[dict[str, float]] = []
    result = run_load(load, lambda: edges.append(sample(groups)))
    time.sleep(PAUSE_SECONDS)
    used = {name: edges[-1][name] - edges[0][name] for name in groups}
    return WatchRun(system=system.name, result=result, cpu_seconds=used)


def idle_on(system: System, options: argparse.Namespace) -> IdleRun:
    groups = system.process_groups()
    result = run_idle(
        system.endpoints, options.idle_watchers, options.idle_streams, lambda: sample_memory(groups)
    )
    time.sleep(PAUSE_SECONDS)
    return IdleRun(system=system.name, result=result)


def compare(systems: Sequence[System], options: argparse.Namespace) -> list[WatchRun]:
    runs = []
    for watchers in options.watchers or (100, 1_000):
        for writers in options.writers or (1, 16):
            for _ in range(options.rounds):
                for system in systems:
                    load = Load(
                        workload="watch",
                        endpoints=tuple(system.endpoints),
                        watchers=watchers,
                        clients=writers,
                        watchers_per_stream=options.watchers_per_stream,
                        seconds=options.seconds,
                        value_bytes=options.value_bytes,
                    )
                    run = run_on(system, load)
                    print(describe(run), file=sys.stderr, flush=True)
                    runs.append(run)
    return runs


def describe(run: WatchRun) -> str:
    result = run.result
    return (
        f"{run.system:7} {name_of(run)}: {result.operations_per_second:,.0f} events/s, "
        f"p50 {result.latency_ms.get('p50', 0):.2f} ms, {result.checked.events} events checked"
    )


def name_of(run: WatchRun) -> str:
    return f"{run.result.load.watchers} watchers, {run.result.load.clients} writers"


Measure = Callable[[WatchRun], float]


def values(runs: Sequence[WatchRun], load: str, system: str, measure: Measure) -> list[float]:
    return [measure(run) for run in runs if (name_of(run), run.system) == (load, system)]


def latency(share: str) -> Measure:
    return lambda run: run.result.latency_ms.get(share, 0.0)


def ratio(etcd: Sequence[float], etcray: Sequence[float]) -> str:
    return f"{median(etcray) / median(etcd):.2f}" if etcd and etcray and median(etcd) else ""


def delivery_table(runs: Sequence[WatchRun]) -> Table:
    table = Table(title="events delivered per second, and ms from put to event; medians (lowest-highest)")
    headings = ("load", "etcd /s", "etcray /s", "ratio")
    for heading in (*headings, "etcd p50 ms", "etcray p50 ms", "ratio", "etcd p99", "etcray p99", "ratio"):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    for load in dict.fromkeys(map(name_of, runs)):
        rates = [values(runs, load, name, lambda run: run.result.operations_per_second) for name in SYSTEMS]
        row = [load, spread(rates[0]), spread(rates[1]), ratio(*rates)]
        for share in ("p50", "p99"):
            pair = [values(runs, load, name, latency(share)) for name in SYSTEMS]
            row += [f"{median(found):.2f}" if found else "" for found in pair]
            row.append(ratio(*pair))
        table.add_row(*row)
    return table


def cost_table(runs: Sequence[WatchRun]) -> Table:
    table = Table(title="CPU per delivered event in us")
    for heading in ("load", "system", *ROLES, "generator", "puts/s"):
        table.add_column(heading, justify="left" if heading in ("load", "system") else "right")
    for load in dict.fromkeys(map(name_of, runs)):
        for system in SYSTEMS:
            some = [run for run in runs if (name_of(run), run.system) == (load, system)]
            if not some:
                continue
            costs = [
                f"{median(run.cpu_seconds[role] / max(1, run.result.operations) for run in some) * 1e6:.2f}"
                if all(role in run.cpu_seconds for run in some)
                else ""
                for role in ROLES
            ]
            generator = median(
                run.result.generator_cpu_seconds * 1e6 / max(1, run.result.operations) for run in some
            )
            puts = median(run.result.requests_per_second for run in some)
            table.add_row(load, system, *costs, f"{generator:.2f}", f"{puts:,.0f}")
    return table


def memory_table(runs: Sequence[IdleRun]) -> Table:
    table = Table(title="private memory per idle watcher in bytes")
    for heading in ("system", "watchers", "streams", *ROLES, "all", "created /s"):
        table.add_column(heading, justify="left" if heading == "system" else "right")
    for run in runs:
        each = {role: run.bytes_per_watcher(role) for role in ROLES if role in run.result.bytes_after}
        table.add_row(
            run.system,
            f"{run.result.watchers:,}",
            str(run.result.streams),
            *(f"{each[role]:,.0f}" if role in each else "" for role in ROLES),
            f"{sum(each.values()):,.0f}",
            f"{run.result.created_per_second:,.0f}",
        )
    return table


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m etcray_bench.watch_versus_etcd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--watchers", type=int, action="append", help="100 and 1000 if not given")
    parser.add_argument("--writers", type=int, action="append", help="1 and 16 if not given")
    parser.add_argument("--watchers-per-stream", type=int, default=1)
    parser.add_argument("--idle-watchers", type=int, default=100_000, help="0: leave memory out")
    parser.add_argument("--idle-streams", type=int, default=10)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--only", choices=SYSTEMS, help="measure one system alone")
    parser.add_argument("--etcd", default="3.5", help="3.5, system, or the path of a binary")
    parser.add_argument("--data-dir", type=Path, help="a temporary directory if not given")
    parser.add_argument("--json", type=Path, help="write every run to this file too")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    binary = find_etcd(options.etcd)
    systems: list[System] = []
    with tempfile.TemporaryDirectory(dir=options.data_dir, prefix="watch-versus-etcd-") as directory:
        try:
            if options.only != "etcray":
                systems.append(Etcd(Path(directory) / "etcd", binary))
            if options.only != "etcd":
                systems.append(Etcray(Path(directory) / "etcray", gateways=options.gateways))
            idle = [idle_on(system, options) for system in systems if options.idle_watchers]
            runs = compare(systems, options)
        finally:
            for system in systems:
                system.stop()
    if options.json is not None:
        report = {
            "environment": environment(binary),
            "idle": [asdict(run) for run in idle],
            "runs": [asdict(run) for run in runs],
        }
        options.json.write_text(json.dumps(report, indent=1))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(delivery_table(runs))
    console.print(cost_table(runs))
    if idle:
        console.print(memory_table(idle))
    console.print(environment(binary))


if __name__ == "__main__":
    main()
