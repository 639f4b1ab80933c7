"""Titles of plots: what was found, in one sentence, computed from what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from etcray_bench.experiments.experiment import Plot, shown
from etcray_bench.report.lines import Line, Mark, Panel


def number(value: float) -> str:
    """Three digits that matter, never in powers of ten."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def of_line(line: Line) -> str:
    return f" ({line.name})" if line.name else ""


def is_time(measure: str) -> bool:
    """Less of it is better."""
    words = ("latency", "pause", "_ms", "_seconds", "resident", "bytes_per")
    return any(word in measure for word in words) and "per_second" not in measure


def best_of(marks: Sequence[Mark], plot: Plot) -> Mark:
    return (min if is_time(plot.y) else max)(marks, key=lambda mark: mark.middle)


def scaling(panel: Panel, plot: Plot) -> str:
    """About the line with the highest value: it is the one that matters for capacity."""
    line = max(panel.lines, key=lambda each: max(mark.middle for mark in each.marks))
    name = plot.x.replace("_", " ")
    first, last = line.marks[0], line.marks[-1]
    if first is last:
        return f"{number(first.middle)} {plot.y_label} at {name} {shown(first.x)}{of_line(line)}"
    ratio = last.middle / first.middle if first.middle else 0.0
    span = f"From {name} {shown(first.x)} to {shown(last.x)}"
    if plot.ideal == "linear" and float(first.x) > 0:
        ideal = float(last.x) / float(first.x)
        return f"{span}: {number(ratio)} times the {plot.y_label}; ideal is {number(ideal)}{of_line(line)}"
    change = f"{number(first.middle)} to {number(last.middle)} {plot.y_label}"
    if plot.ideal == "flat":
        return f"{span}: {change}, {ratio:.0%} of it{of_line(line)}"
    best = best_of(line.marks, plot)
    return f"{span}: {change}; best at {shown(best.x)}{of_line(line)}"


def tradeoff(panel: Panel, plot: Plot) -> str:
    fastest = max(panel.lines, key=lambda each: max(mark.middle for mark in each.marks))
    best = max(fastest.marks, key=lambda mark: mark.middle)
    least = fastest.marks[0]
    name = plot.x.replace("_", " ")
    text = (
        f"{number(best.middle)} requests per second with {shown(best.x)} {name}, p50 {number(p50(best))} ms"
    )
    if least is not best:
        text += f"; p50 {number(p50(least))} ms with {shown(least.x)}"
    return text + of_line(fastest)


def p50(mark: Mark) -> float:
    found = [sample.latency_ms["p50"] for sample in mark.samples if "p50" in sample.latency_ms]
    return median(found) if found else 0.0


def percentiles(tails: Mapping[str, tuple[float, float]]) -> str:
    """By line: the median, and the 99th percentile."""
    best = min(tails, key=lambda name: tails[name][1])
    worst = max(tails, key=lambda name: tails[name][1])
    if best == worst:
        of = f" ({best})" if best else ""
        return f"Half within {number(tails[best][0])} ms, 99 of 100 within {number(tails[best][1])} ms{of}"
    return f"99 of 100 within {number(tails[best][1])} ms ({best}) to {number(tails[worst][1])} ms ({worst})"


def bars(panel: Panel, plot: Plot) -> str:
    """How the second line and those after it compare with the first one."""
    first, *others = panel.lines
    if not others:
        best = best_of(first.marks, plot)
        if len(first.marks) == 1:
            return f"{number(best.middle)} {plot.y_label} ({shown(best.x)})"
        ranked = sorted(first.marks, key=lambda mark: mark.middle)
        ratio = ranked[-1].middle / ranked[0].middle if ranked[0].middle else 0.0
        return (
            f"{number(ranked[0].middle)} ({shown(ranked[0].x)}) to {number(ranked[-1].middle)} "
            f"({shown(ranked[-1].x)}) {plot.y_label}: {number(ratio)} times"
        )
    base = {mark.x: mark.middle for mark in first.marks}
    parts = []
    for line in others:
        ratios = [mark.middle / base[mark.x] for mark in line.marks if base.get(mark.x)]
        if ratios:
            low, high = number(min(ratios)), number(max(ratios))
            span = low if low == high else f"{low} to {high}"
            parts.append(f"{line.name}: {span} times the {plot.y_label} of {first.name}")
    return "; ".join(parts) or f"Only {first.name} was measured"


def distribution(panel: Panel, plot: Plot) -> str:
    parts = []
    for line in panel.lines:
        values = sorted(value for mark in line.marks for value in mark.values)
        name = f"{line.name} " if line.name else ""
        parts.append(f"{name}{number(median(values))} (worst of {len(values)}: {number(values[-1])})")
    return f"Median {plot.y_label}: {', '.join(parts)}"


def timeline(panel: Panel) -> str:
    """What the event did to the rate: the pause if one was measured, else the share that was left."""
    parts = []
    for line in panel.lines:
        samples = [sample for mark in line.marks for sample in mark.samples]
        pauses = [sample.figures["pause_ms"] for sample in samples if "pause_ms" in sample.figures]
        shares = [each.figures["share_while_slow"] for each in samples if "share_while_slow" in each.figures]
        name = f"{line.name} " if line.name else ""
        if pauses:
            parts.append(f"{name}pauses for {number(median(pauses))} ms")
        elif shares:
            parts.append(f"{name}keeps {median(shares):.0%}")
    return f"{cause(panel.lines)}: {', '.join(parts)}" if parts else f"{cause(panel.lines)} under load"


def cause(lines: Sequence[Line]) -> str:
    """What the first event of the samples is, if it is the same for all."""
    samples = [sample for line in lines for mark in line.marks for sample in mark.samples]
    names = {f"{event.name} of {event.detail}" for sample in samples for event in sample.events[:1]}
    return names.pop() if len(names) == 1 else "Throughput with the fault" if names else "Throughput"
