"""One HTML page, with nothing outside of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.experiment import Experiment, Plot, shown
from etcray_bench.experiments.registry import find
from etcray_bench.report import comparison as comparing
from etcray_bench.report import plots, versus
from etcray_bench.report.comparison import Comparison
from etcray_bench.report.findings import number
from etcray_bench.report.lines import names_of
from etcray_bench.report.style import STYLE
from etcray_bench.results.records import Environment, Point, Run, Sample

UNKNOWN_PLOTS = (Plot(kind="percentiles"),)


def report_page(runs: Sequence[Run], source: str) -> str:
    """Raises LaboratoryError if there is no matplotlib."""
    links = "".join(f'<a href="#run-{run.run_id}">{escape(run.experiment)}</a>' for run in runs)
    head = f"<h1>etcray laboratory</h1><p class=faint>{escape(source)}</p><nav>{links}</nav>"
    return _page("etcray laboratory", head + "".join(_section(run) for run in runs))


def comparison_page(found: Comparison, before: str, after: str) -> str:
    """The table of a comparison, and what the two do not have in common."""
    rows = []
    for row in comparing.in_order(found.rows):
        style = {comparing.BETTER: "good", comparing.WORSE: "bad"}.get(row.verdict, "")
        rows.append((style, comparing.cells(row)))
    lines = "".join(f"<p>{escape(line)}</p>" for line in comparing.summary(found).splitlines())
    missing = [("only in the first", found.only_before), ("only in the second", found.only_after)]
    lists = "".join(
        f"<details><summary>{title}: {len(points)} points</summary>{_list(points)}</details>"
        for title, points in missing
        if points
    )
    head = f"<h1>{escape(after)} compared with {escape(before)}</h1>{lines}"
    return _page("etcray laboratory: a comparison", head + _table(comparing.HEADINGS, rows, words=3) + lists)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _section(run: Run) -> str:
    experiment = _known(run.experiment)
    question = experiment.question if experiment else run.experiment
    caption = f"<p class=faint>{escape(experiment.caption)}</p>" if experiment and experiment.caption else ""
    wanted = experiment.plots if experiment else UNKNOWN_PLOTS
    figures = "".join(
        f"<figure><h3>{escape(drawn.title)}</h3><p class=faint>{escape(drawn.note)}</p>{drawn.svg}</figure>"
        for plot in wanted
        for drawn in plots.draw(run, plot)
    )
    return (
        f'<section id="run-{run.run_id}"><h2>{escape(question)}</h2>'
        f"<p class=faint>{escape(_what(run))}</p>{caption}{_failures(run)}"
        f'<div class="plots">{figures}</div>{_versus(run)}{_points(run)}{_environment(run)}</section>'
    )


def _known(name: str) -> Experiment | None:
    """None for an experiment of another version: its samples are shown all the same."""
    try:
        return find(name)
    except LaboratoryError:
        return None


def _what(run: Run) -> str:
    plan = run.plan
    state = "" if run.finished_at else ", not finished"
    quick = ", quick" if plan.quick else ""
    return (
        f"{run.experiment}, run {run.run_id} of {run.started_at:%Y-%m-%d %H:%M} UTC{state}{quick}: "
        f"{len(run.points)} points, {plan.repetitions} repetitions of {plan.seconds:g} s after "
        f"{plan.warmup_seconds:g} s of warm-up"
    )


def _failures(run: Run) -> str:
    failed = [point for point in run.points if point.error]
    return "".join(f"<p class=bad>{escape(point.name)}: {escape(point.error)}</p>" for point in failed)


def _versus(run: Run) -> str:
    if run.experiment != "versus-etcd":
        return ""
    parts = []
    for title, headings, rows in versus.sections(run):
        styled = [
            ("bad" if any("FAIL" in cell for cell in row) else "good" if "pass" in row[-1] else "", row)
            for row in rows
        ]
        parts.append(f"<h3>{escape(title)}</h3>{_table(headings, styled, words=2)}")
    return "".join(parts)


def _points(run: Run) -> str:
    """Everything that was measured, as numbers."""
    variables = names_of(run.points)
    figures = list(dict.fromkeys(n for p in run.points for s in p.samples for n in s.figures))
    roles = list(dict.fromkeys(role for p in run.points for s in p.samples for role in s.roles))
    headings = [
        *variables,
        "samples",
        "requests/s",
        "lowest",
        "highest",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "failed",
        *(f"{name}" for name in figures),
        *(f"{role} us CPU each" for role in roles),
        *(f"{role} MiB" for role in roles),
    ]
    rows = [("", _cells(point, variables, figures, roles)) for point in run.points if point.samples]
    if not rows:
        return ""
    table = _table(headings, rows, words=len(variables))
    return f"<details open><summary>all figures: medians over the repetitions</summary>{table}</details>"


def _cells(point: Point, variables: Sequence[str], figures: Sequence[str], roles: Sequence[str]) -> list[str]:
    samples = point.samples
    rates = [sample.requests_per_second for sample in samples if sample.requests]
    return [
        *(shown(point.variables.get(name, "")) for name in variables),
        str(len(samples)),
        *(number(of(rates)) if rates else "" for of in (median, min, max)),
        *(_median(s.latency_ms.get(share) for s in samples) for share in ("p50", "p99", "p999")),
        f"{sum(sample.failures for sample in samples):,}",
        *(_median(sample.figures.get(name) for sample in samples) for name in figures),
        *(_median(_cpu_each(sample, role) for sample in samples) for role in roles),
        *(
            _median(s.roles[role].resident_bytes / 2**20 if role in s.roles else None for s in samples)
            for role in roles
        ),
    ]


def _cpu_each(sample: Sample, role: str) -> float | None:
    """Microseconds per request."""
    if role not in sample.roles or not sample.requests:
        return None
    return sample.roles[role].cpu_seconds / sample.requests * 1e6


def _median(values: Iterable[float | None]) -> str:
    found = [value for value in values if value is not None]
    return number(median(found)) if found else ""


def _environment(run: Run) -> str:
    found: Environment = run.environment
    loads = [point.load_average for point in run.points]
    rows = {
        "machine": f"{found.cpus} cores, {found.cpu_model}, {found.memory_bytes / 2**30:.1f} GiB",
        "kernel": found.kernel,
        "commit": found.commit,
        "versions": ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        "Ray nodes": str(found.ray_nodes),
        "load average": f"{found.load_average:.2f} at first, up to {max(loads, default=0.0):.2f} at a point",
    }
    cells = [("", row) for row in rows.items()]
    return f"<details><summary>environment</summary>{_table(('', ''), cells, words=2)}</details>"


def _table(headings: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, words: int) -> str:
    """Each row with its class; the first columns hold words, the others numbers."""

    def cell(tag: str, at: int, text: str) -> str:
        return f"<{tag}{' class=word' if at < words else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", at, text) for at, text in enumerate(headings))
    body = "".join(
        f"<tr{f' class={style}' if style else ''}>"
        + "".join(cell("td", at, text) for at, text in enumerate(cells))
        + "</tr>"
        for style, cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
