"""What `etcray bench` prints: a line that says how it goes, then the result as a table, JSON or CSV."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from etcray.client import Client
from etcray.client.errors import EtcrayError
from etcray.errors import OptionsError
from etcray_bench.load.errors import LoadError
from etcray_bench.load.latency import Latency
from etcray_bench.load.options import WORKLOADS, Load
from etcray_bench.load.result import LoadResult
from etcray_bench.load.run import Progress, run_load

PERCENTILES: Final = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)
FAILURES_SHOWN: Final = 5
STATUS_SECONDS_MAX: Final = 5.0

Format = Literal["table", "json", "csv"]

_FIELDS: Final = {
    "warmup": "warmup_seconds",
    "key_size": "key_bytes",
    "value_size": "value_bytes",
    "value_size_max": "value_bytes_max",
    "lease_ttl": "lease_ttl_seconds",
    "request_timeout": "request_seconds_max",
}
"""Options whose names leave the unit to the help text."""


def load_from(options: Mapping[str, Any]) -> Load:
    """Of the command's options; raises OptionsError."""
    if options["json"] and options["csv"]:
        raise OptionsError("--json and --csv exclude each other")
    fields = {
        _FIELDS.get(name, name): value for name, value in options.items() if name not in ("json", "csv")
    }
    fields["endpoints"] = tuple(part.strip() for part in options["endpoints"].split(","))
    return Load(**fields)


def list_workloads(*, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(WORKLOADS).decode())
        return
    for name, text in WORKLOADS.items():
        print(f"{name:20}{text}")


def run(load: Load, output: Format) -> None:
    """Raises LoadError, after the result was printed if that is no more than failed operations."""
    progress = ProgressLine()
    try:
        result = run_load(load, on_progress=progress.show)
    finally:
        progress.clear()
    surroundings = environment(load)
    if output == "json":
        print(json_of(result, surroundings))
    elif output == "csv":
        print_csv(result)
    else:
        print_table(result, surroundings)
    if result.failures and not load.tolerate_failures:
        raise LoadError(
            f"{result.failed} operations failed, the first with: {result.first_failure}. "
            "--tolerate-failures says that this is expected"
        )


class ProgressLine:
    """One line on the terminal of standard error that is written anew; nothing if there is none."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._width = 0

    def show(self, progress: Progress) -> None:
        if self._is_shown:
            self._write(progress_text(progress))

    def clear(self) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


def progress_text(progress: Progress) -> str:
    if progress.phase == "check":
        return "check: reading every key"
    what = "keys" if progress.phase == "preload" else "operations"
    text = f"{progress.phase} {progress.seconds:.1f}"
    if progress.of_seconds and progress.phase != "drain":
        text += f"/{progress.of_seconds:g}"
    text += f" s  {progress.operations:,} {what}  {progress.operations_per_second:,.0f}/s"
    if progress.p99_ms:
        text += f"  p99 {progress.p99_ms:.2f} ms"
    if progress.failures:
        text += f"  {progress.failures:,} failed"
    return text


def environment(load: Load) -> dict[str, str]:
    """What the figures depend on besides the load."""
    try:
        with Client(load.endpoints, timeout=STATUS_SECONDS_MAX) as client:
            server = client.status().version
    except EtcrayError as error:
        server = f"unknown ({error})"
    try:
        own = version("etcray")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "server": server,
        "generator": own,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
    }


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def environment_line(found: Mapping[str, str]) -> str:
    return (
        f"server {found['server']}, etcray {found['generator']}, Python {found['python']}, "
        f"{found['system']}, {found['cores']} cores, {found['processor']}"
    )


def json_of(result: LoadResult, surroundings: Mapping[str, str]) -> str:
    """Everything, and what can be computed of it, so that nobody has to."""
    content = msgspec.to_builtins(result) | {
        "operations_per_second": result.operations_per_second,
        "requests_per_second": result.requests_per_second,
        "generator_cpu_us_per_request": result.generator_cpu_us_per_request,
        "environment": dict(surroundings),
    }
    return msgspec.json.encode(content).decode()


def _rows(result: LoadResult) -> list[tuple[str, int, float, Latency, Latency]]:
    """Name, count, rate and both latencies of each operation, and of all if there are several."""
    rows = [
        (name, each.count, each.count / result.seconds, each.latency, each.service_time)
        for name, each in result.by_operation.items()
    ]
    if len(rows) > 1:
        rate = result.operations_per_second
        rows.append(("all", result.operations, rate, result.latency, result.service_time))
    return rows


def print_csv(result: LoadResult) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = [_percentile_name(percentile) for percentile in PERCENTILES]
    writer.writerow(
        ["workload", "clients", "rate", "operation", "count", "per_second", "mean_ms"]
        + [f"{name}_ms" for name in names]
        + [f"service_{name}_ms" for name in names]
    )
    load = result.load
    for name, count, rate, latency, service in _rows(result):
        writer.writerow(
            [load.workload, load.clients, load.rate or "", name, count, f"{rate:.1f}"]
            + [f"{latency.mean_ms:.3f}"]
            + [f"{value:.3f}" for value in latency.percentiles_ms(PERCENTILES)]
            + [f"{value:.3f}" for value in service.percentiles_ms(PERCENTILES)]
        )


def print_table(result: LoadResult, surroundings: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    load = result.load
    loop = (
        f"{load.clients} clients, closed loop"
        if load.rate is None
        else f"{load.rate:g}/s ({load.arrivals}), up to {load.clients} at once, open loop"
    )
    console.print(
        f"{load.workload}: {result.operations_per_second:,.0f} operations/s, {loop}, {result.seconds:.1f} s"
    )
    rows = _rows(result)
    summary = Table(box=box.SIMPLE, pad_edge=False)
    summary.add_column("latency in ms")
    for name, *_ in rows:
        summary.add_column(name, justify="right")
    if load.rate is not None:
        summary.add_column("service time", justify="right")
    columns = [latency.percentiles_ms(PERCENTILES) for _, _, _, latency, _ in rows]
    columns += [rows[-1][4].percentiles_ms(PERCENTILES)] if load.rate is not None else []
    summary.add_row("count", *(f"{count:,}" for _, count, *_ in rows))
    summary.add_row("per second", *(f"{rate:,.0f}" for _, _, rate, *_ in rows), end_section=True)
    for number, percentile in enumerate(PERCENTILES):
        summary.add_row(_percentile_name(percentile), *(f"{column[number]:.3f}" for column in columns))
    console.print(summary, end="")
    for line in _notes(result):
        console.print(line, soft_wrap=True)
    console.print(environment_line(surroundings), soft_wrap=True)


def _notes(result: LoadResult) -> list[str]:
    checked = result.checked
    found = [f"{checked.keys:,} keys"]
    if checked.puts:
        found.append(f"{checked.puts:,} writes counted")
    if checked.events:
        found.append(f"{checked.events:,} events")
    if checked.leases:
        found.append(f"{checked.leases:,} leases")
    lines = [f"checked: {', '.join(found)}"]
    if checked.unknown_outcomes:
        lines[0] += f"; {checked.unknown_outcomes:,} writes without an answer, either way accepted"
    if result.conflicts:
        lines.append(f"guarded writes that lost a race: {result.conflicts:,}")
    if result.unstarted:
        lines.append(f"operations that no client was free for: {result.unstarted:,}; more --clients may help")
    if result.connections_lost:
        lines.append(f"connections lost: {result.connections_lost}")
    for text, count in list(result.failures.items())[:FAILURES_SHOWN]:
        lines.append(f"failed, {count:,} times: {text}")
    lines.append(
        f"generator: {result.generator_cpu_us_per_request:.1f} us of CPU for a request, "
        f"{result.generator_cpu_seconds / result.seconds:.0%} of a core"
    )
    return lines


def _percentile_name(percentile: float) -> str:
    return "max" if percentile == 100 else f"p{percentile:g}"
