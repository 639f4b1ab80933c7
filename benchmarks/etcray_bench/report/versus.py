"""The table of versus-etcd: ratios against the bar, and where the CPU time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.table import Table

from etcray_bench.report.findings import number
from etcray_bench.results.records import Run, Sample

GIB: Final = 2**30
PLAIN: Final = "put-256"
LARGE: Final = "put-256-1M-keys"
FAILOVER: Final = "failover"
ROLES: Final = ("gateway", "leader", "followers", "history", "ray")

Measured = Mapping[tuple[str, str], Sequence[Sample]]
"""The samples of a load on a system."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One line of the bar."""

    load: str
    what: str
    limit: float
    is_least: bool
    """The limit is a lower one."""
    of: Callable[[Measured, str], float | None]
    """What the system of that name reached; None if that was not measured."""

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit

    @property
    def wanted(self) -> str:
        return f"{'at least' if self.is_least else 'at most'} {self.limit:g}"


def samples_median(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> float | None:
    found = [value for sample in samples if (value := of(sample)) is not None]
    return median(found) if found else None


def rate(sample: Sample) -> float | None:
    return sample.requests_per_second if sample.requests else None


def p50(sample: Sample) -> float | None:
    return sample.latency_ms.get("p50")


def p99(sample: Sample) -> float | None:
    return sample.latency_ms.get("p99")


def pause(sample: Sample) -> float | None:
    return sample.figures.get("pause_ms")


def to_etcd(load: str, of: Callable[[Sample], float | None]) -> Callable[[Measured, str], float | None]:
    """The ratio of the medians."""

    def ratio(measured: Measured, system: str) -> float | None:
        ours = samples_median(measured.get((load, system), ()), of)
        theirs = samples_median(measured.get((load, "etcd"), ()), of)
        return ours / theirs if ours is not None and theirs else None

    return ratio


def own_pause(measured: Measured, system: str) -> float | None:
    return samples_median(measured.get((FAILOVER, system), ()), pause)


def large_by_small(measured: Measured, system: str) -> float | None:
    large = samples_median(measured.get((LARGE, system), ()), rate)
    small = samples_median(measured.get((PLAIN, system), ()), rate)
    return large / small if large is not None and small else None


def member_gib(measured: Measured, system: str) -> float | None:
    """Of the leader, which has the most to do."""
    return samples_median(
        measured.get((LARGE, system), ()),
        lambda sample: sample.roles["leader"].resident_bytes / GIB if "leader" in sample.roles else None,
    )


LEAST_RATES: Final = {
    "put-64": 2.0,
    "put-256": 2.5,
    "put-1024": 2.0,
    "range-256": 3.0,
    "serializable-range-256": 3.0,
    "txn-256": 3.0,
}
BAR: Final = (
    *(
        Demand(load, "throughput / etcd's", least, True, to_etcd(load, rate))
        for load, least in LEAST_RATES.items()
    ),
    Demand("put-1", "p50 / etcd's", 2.0, False, to_etcd("put-1", p50)),
    Demand("put-256", "p99 / etcd's", 1.0, False, to_etcd("put-256", p99)),
    Demand(FAILOVER, "pause of writes, p50, ms", 300.0, False, own_pause),
    Demand(FAILOVER, "pause / etcd's", 1.0, False, to_etcd(FAILOVER, pause)),
    Demand(LARGE, "throughput / that with 10,000 keys", 0.9, True, large_by_small),
    Demand(LARGE, "GiB resident at the leader", 1.5, False, member_gib),
)
"""What etcray is to reach on two cores with values of 256 bytes."""


def rate_bar(load: str) -> float | None:
    """The least multiple of etcd's throughput that is wanted of this load."""
    return LEAST_RATES.get(load)


def measured_in(run: Run) -> dict[tuple[str, str], Sequence[Sample]]:
    return {
        (str(point.variables["load"]), str(point.variables["system"])): point.samples for point in run.points
    }


def systems_of(run: Run) -> list[str]:
    """Of etcray: one for each transport."""
    found = dict.fromkeys(str(point.variables["system"]) for point in run.points)
    return [name for name in found if name != "etcd"]


Rows = list[tuple[str, ...]]


def speed_rows(run: Run) -> Rows:
    """A row for each load and system: rates, ratios, latencies. Nothing that was measured is left out."""
    measured = measured_in(run)
    errors = {(str(p.variables["load"]), str(p.variables["system"])): p.error for p in run.points if p.error}
    rows: Rows = []
    for load in dict.fromkeys(load for load, _ in measured):
        theirs = measured.get((load, "etcd"), ())
        for system in systems_of(run):
            ours = measured.get((load, system), ())
            if load == FAILOVER:
                rows.append((f"{load} (pause, ms)", system, *_pair(theirs, ours, pause), "", "", ""))
            else:
                etcd_rate, our_rate, ratio = _pair(theirs, ours, rate)
                latencies = [f"{_short(theirs, of)} / {_short(ours, of)}" for of in (p50, p99)]
                rows.append(
                    (load, system, etcd_rate, our_rate, ratio, *latencies, _bar_of(load, measured, system))
                )
            error = errors.get((load, system)) or errors.get((load, "etcd"))
            if error:
                rows[-1] = (*rows[-1][:-1], f"FAILED: {error}")
    return rows


SPEED_HEADINGS: Final = (
    "load",
    "system",
    "etcd /s",
    "etcray /s",
    "ratio",
    "p50 ms etcd / etcray",
    "p99 ms",
    "bar",
)


def _pair(
    theirs: Sequence[Sample], ours: Sequence[Sample], of: Callable[[Sample], float | None]
) -> tuple[str, str, str]:
    first, second = samples_median(theirs, of), samples_median(ours, of)
    ratio = f"{second / first:.2f}" if first and second is not None else ""
    return _spread(theirs, of), _spread(ours, of), ratio


def _spread(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> str:
    found = [value for sample in samples if (value := of(sample)) is not None]
    if not found:
        return ""
    return (
        f"{median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f})"
        if len(found) > 1
        else f"{found[0]:,.0f}"
    )


def _short(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> str:
    found = samples_median(samples, of)
    return "" if found is None else f"{found:.2f}"


def _bar_of(load: str, measured: Measured, system: str) -> str:
    """For a demand of throughput: cleared or not."""
    least = rate_bar(load)
    reached = to_etcd(load, rate)(measured, system)
    if least is None or reached is None:
        return ""
    return f"{'pass' if reached >= least else 'FAIL'} ({least:g})"


BAR_HEADINGS: Final = ("load", "what", "wanted", "system", "reached", "")


def bar_rows(run: Run) -> Rows:
    """Every demand whose load was measured."""
    measured = measured_in(run)
    rows: Rows = []
    for demand in BAR:
        for system in systems_of(run):
            value = demand.of(measured, system)
            if value is not None:
                verdict = "pass" if demand.is_met(value) else "FAIL"
                rows.append((demand.load, demand.what, demand.wanted, system, number(value), verdict))
    return rows


COST_HEADINGS: Final = ("load", "system", *ROLES, "generator", "requests per entry")


def cost_rows(run: Run) -> Rows:
    """Where the CPU time goes: in us per request, and of members also in ms per log entry (in brackets). A
    log entry is a batch in etcray and a request in etcd."""
    rows: Rows = []
    for (load, system), samples in measured_in(run).items():
        loads = [sample for sample in samples if sample.requests and sample.roles]
        if not loads or load == FAILOVER:
            continue
        generator = median(sample.generator_cpu_seconds / sample.requests for sample in loads) * 1e6
        writes = all(sample.log_entries > 10 * sample.seconds for sample in loads)
        entries = f"{median(s.requests / s.log_entries for s in loads):.1f}" if writes else ""
        costs = [_cost(loads, role, per_entry=writes and role in ("leader", "followers")) for role in ROLES]
        rows.append((load, system, *costs, f"{generator:.0f}", entries))
    return rows


def _cost(samples: Iterable[Sample], role: str, *, per_entry: bool) -> str:
    loads = [sample for sample in samples if role in sample.roles]
    if not loads:
        return ""
    text = f"{median(sample.roles[role].cpu_seconds / sample.requests for sample in loads) * 1e6:.0f}"
    if per_entry:
        text += f" [{median(s.roles[role].cpu_seconds / s.log_entries for s in loads) * 1e3:.2f}]"
    return text


def sections(run: Run) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Titles, headings and rows of all tables."""
    found = [
        ("Side by side, medians over the repetitions (lowest-highest)", SPEED_HEADINGS, speed_rows(run)),
        ("The bar", BAR_HEADINGS, bar_rows(run)),
        ("CPU per request in us; per log entry in ms in brackets", COST_HEADINGS, cost_rows(run)),
    ]
    return [section for section in found if section[2]]


def tables(run: Run) -> list[Table]:
    """For a terminal."""
    made = []
    for title, headings, rows in sections(run):
        table = Table(title=title)
        for number_of, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number_of < 2 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row, style="red" if any("FAIL" in cell for cell in row) else "")
        made.append(table)
    return made


def markdown(run: Run) -> str:
    """For a README: the same tables, and what they depend on."""
    lines = []
    for title, headings, rows in sections(run):
        lines += [f"{title}:", "", _markdown_row(headings), _markdown_row(_rules(headings))]
        lines += [_markdown_row(row) for row in rows]
        lines.append("")
    found = run.environment
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    lines.append(
        f"{found.cpus} cores of {found.cpu_model}, {found.kernel}; {versions}; commit {found.commit}."
    )
    return "\n".join(lines)


def _rules(headings: Sequence[str]) -> list[str]:
    return ["---" if number_of < 2 else "---:" for number_of in range(len(headings))]


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
