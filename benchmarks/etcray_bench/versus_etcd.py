"""The same loads on a real etcd and on etcray, side by side.

    python -m etcray_bench.versus_etcd --rounds 3 --seconds 5

Both clusters have three members on this machine and stay up for the whole run; while one is loaded,
the other is idle. Each load goes etcd, etcray, etcd, etcray ..., so that a slow minute of the machine
hits both; medians over the rounds are compared, and the spread is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from etcray_bench.etcd import find_etcd
from etcray_bench.load import Load, LoadResult, run_load
from etcray_bench.processes import sample
from etcray_bench.systems import Etcd, Etcray, System, raft_index

LOADS: Final[tuple[tuple[str, int], ...]] = (
    ("put", 1),
    ("put", 64),
    ("put", 256),
    ("range", 64),
    ("range", 256),
    ("serializable-range", 256),
    ("txn", 64),
    ("txn", 256),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on one system."""

    system: str
    result: LoadResult
    cpu_seconds: dict[str, float]
    """By process group, within the measured time."""
    log_entries: int
    """Within the measured time; for etcray that is the number of batches."""

    @property
    def requests(self) -> int:
        return max(1, self.result.requests)


def run_on(system: System, load: Load) -> Run:
    groups = system.process_groups()
    cpu_edges: list[dict[str, float]] = []
    index_edges: list[int] = []

    def at_edge() -> None:
        cpu_edges.append(sample(groups))
        index_edges.append(raft_index(system))

    result = run_load(load, at_edge)
    return Run(
        system=system.name,
        result=result,
        cpu_seconds={name: cpu_edges[-1][name] - cpu_edges[0][name] for name in groups},
        log_entries=index_edges[-1] - index_edges[0],
    )


def compare(systems: Sequence[System], options: argparse.Namespace) -> list[Run]:
    runs = []
    for workload, clients in chosen_loads(options.load):
        for _ in range(options.rounds):
            for system in systems:
                load = Load(
                    endpoints=tuple(system.endpoints),
                    workload=workload,
                    clients=clients,
                    seconds=options.seconds,
                    warmup_seconds=options.warmup_seconds,
                    value_bytes=options.value_bytes,
                    keys=options.keys,
                )
                run = run_on(system, load)
                print(describe(run), file=sys.stderr, flush=True)
                runs.append(run)
    return runs


def chosen_loads(names: Sequence[str]) -> list[tuple[str, int]]:
    """All of them, or the ones named like `put-64`."""
    by_name = {f"{workload}-{clients}": (workload, clients) for workload, clients in LOADS}
    unknown = set(names) - set(by_name)
    if unknown:
        raise SystemExit(f"no such load: {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def describe(run: Run) -> str:
    result = run.result
    return (
        f"{run.system:7} {result.load.workload} {result.load.clients}: {result.requests_per_second:,.0f}/s, "
        f"p50 {result.latency_ms.get('p50', 0):.2f} ms, {result.failures} failed"
    )


def speed_table(runs: Sequence[Run]) -> Table:
    table = Table(title="requests per second and latency, medians over the rounds (lowest-highest)")
    for heading in (
        "load",
        "etcd /s",
        "etcray /s",
        "ratio",
        "etcd p50 ms",
        "etcray p50 ms",
        "etcd p99",
        "etcray p99",
    ):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    for name, by_system in grouped(runs).items():
        rates = {
            system: [run.result.requests_per_second for run in some] for system, some in by_system.items()
        }
        row = [name, spread(rates.get("etcd")), spread(rates.get("etcray"))]
        both = "etcd" in rates and "etcray" in rates
        row.append(f"{median(rates['etcray']) / median(rates['etcd']):.2f}" if both else "")
        for share in ("p50", "p99"):
            for system in ("etcd", "etcray"):
                latencies = [run.result.latency_ms.get(share, 0.0) for run in by_system.get(system, [])]
                row.append(f"{median(latencies):.2f}" if latencies else "")
        table.add_row(*row)
    return table


def cost_table(runs: Sequence[Run]) -> Table:
    """Where the CPU time goes: per request, and at the members also per log entry."""
    table = Table(title="CPU per request in us; per log entry in ms in brackets")
    groups = ("gateway", "leader", "followers")
    for heading in ("load", "system", *groups, "generator", "requests per entry"):
        table.add_column(heading, justify="left" if heading in ("load", "system") else "right")
    for name, by_system in grouped(runs).items():
        for system, some in by_system.items():
            costs = [cost(some, group) for group in groups]
            generator = median(run.result.generator_cpu_us_per_request for run in some)
            per_entry = median(run.requests / max(1, run.log_entries) for run in some)
            batches = f"{per_entry:.1f}" if name.startswith(("put", "txn")) else ""
            table.add_row(name, system, *costs, f"{generator:.0f}", batches)
    return table


def cost(runs: Sequence[Run], group: str) -> str:
    if any(group not in run.cpu_seconds for run in runs):
        return ""
    each = median(run.cpu_seconds[group] / run.requests for run in runs) * 1e6
    if group == "gateway" or any(run.log_entries < run.result.seconds * 10 for run in runs):
        return f"{each:.0f}"
    entry = median(run.cpu_seconds[group] / run.log_entries for run in runs) * 1e3
    return f"{each:.0f} [{entry:.2f}]"


def grouped(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        load = f"{run.result.load.workload} {run.result.load.clients}"
        groups.setdefault(load, {}).setdefault(run.system, []).append(run)
    return groups


def spread(values: list[float] | None) -> str:
    if not values:
        return ""
    return f"{median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def environment(binary: Path) -> dict[str, str | int]:
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cpus": os.cpu_count() or 0,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "etcd": version.splitlines()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m etcray_bench.versus_etcd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup-seconds", type=float, default=2.0)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--load", action="append", default=[], help="such as put-64; all if not given")
    parser.add_argument("--only", choices=("etcd", "etcray"), help="measure one system alone")
    parser.add_argument("--etcd", default="3.5", help="3.5, system, or the path of a binary")
    parser.add_argument("--data-dir", type=Path, help="a temporary directory if not given")
    parser.add_argument("--json", type=Path, help="write every run to this file too")
    options = parser.parse_args()

    binary = find_etcd(options.etcd)
    systems: list[System] = []
    with tempfile.TemporaryDirectory(dir=options.data_dir, prefix="versus-etcd-") as directory:
        try:
            if options.only != "etcray":
                systems.append(Etcd(Path(directory) / "etcd", binary))
            if options.only != "etcd":
                systems.append(Etcray(Path(directory) / "etcray", gateways=options.gateways))
            runs = compare(systems, options)
        finally:
            for system in systems:
                system.stop()
    report = {"environment": environment(binary), "runs": [asdict(run) for run in runs]}
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(speed_table(runs))
    console.print(cost_table(runs))
    console.print(report["environment"])


if __name__ == "__main__":
    main()
