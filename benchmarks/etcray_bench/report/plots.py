"""What an experiment's plots look like: one function for each kind, from lines to figures with a title."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from etcray_bench.experiments.experiment import Plot, shown
from etcray_bench.report import drawing, findings, percentiles
from etcray_bench.report.lines import Line, Panel, panels
from etcray_bench.results.records import Run, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IDEAL_ROOM: Final = 1.7
"""An ideal that is further away leaves the plot: what was measured should fill it."""
NINES: Final = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure of the page."""

    title: str
    """What was found."""
    note: str
    """What is drawn; with the values that all of it has in common."""
    svg: str


def draw(run: Run, plot: Plot) -> list[Drawn]:
    """A figure for each panel; none if no sample has what the plot shows."""
    return [drawn for panel in panels(run, plot) if (drawn := KINDS[plot.kind](panel, plot)) is not None]


def _finish(panel: Panel, axes: Axes, title: str, what: str) -> Drawn:
    if len([line for line in panel.lines if line.name]) > 1:
        drawing.legend(axes)
    figure = axes.get_figure()
    assert figure is not None, "axes without a figure"
    note = f"{what} — {panel.name}" if panel.name else what
    return Drawn(title, note, drawing.to_svg(figure, title))  # type: ignore[arg-type]


def _numbers(line: Line) -> list[float]:
    return [float(mark.x) for mark in line.marks]


def _with_spread(axes: Axes, line: Line, number: int, xs: list[float]) -> None:
    colour = drawing.colour_of(number)
    middles = [mark.middle for mark in line.marks]
    below = [mark.middle - mark.low for mark in line.marks]
    above = [mark.high - mark.middle for mark in line.marks]
    bars = axes.errorbar(
        xs,
        middles,
        yerr=[below, above],
        color=colour,
        marker="o",
        markersize=5,
        linewidth=1.8,
        capsize=2.5,
        elinewidth=1.0,
        label=line.name or None,
    )
    bars.lines[0].set_gid(f"line-{number}")


def scaling(panel: Panel, plot: Plot) -> Drawn | None:
    """A measure over a variable, with what would be ideal."""
    if not all(isinstance(mark.x, int | float) for mark in panel.marks):
        return bars(panel, plot)
    _, axes = drawing.new_figure()
    highest_ideal = 0.0
    for number, line in enumerate(panel.lines):
        xs = _numbers(line)
        _with_spread(axes, line, number, xs)
        if plot.ideal and len(xs) > 1:
            first = line.marks[0].middle
            if plot.ideal == "flat":
                ideal = [first for _ in xs]
            else:
                ideal = [first * x / xs[0] for x in xs] if xs[0] else []
            if ideal:
                (drawn,) = axes.plot(
                    xs, ideal, linestyle=(0, (4, 3)), linewidth=1.0, color=drawing.colour_of(number)
                )
                drawn.set_gid(f"ideal-{number}")
                highest_ideal = max(highest_ideal, *ideal)
    _scale_x(axes, panel, plot)
    measured = max(mark.high for mark in panel.marks)
    top = max(measured, min(highest_ideal, measured * IDEAL_ROOM))
    axes.set_ylim(0, top * 1.12 if top > 0 else 1)
    drawing.plain_numbers(axes.yaxis)
    axes.set_ylabel(plot.y_label)
    note = f"{plot.y_label} by {plot.x.replace('_', ' ')}"
    if plot.ideal:
        note += "; dashed: ideal"
    return _finish(panel, axes, findings.scaling(panel, plot), note)


def _scale_x(axes: Axes, panel: Panel, plot: Plot) -> None:
    xs = sorted({float(mark.x) for mark in panel.marks})
    if plot.logarithmic and xs[0] > 0 and len(xs) > 1:
        axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [shown(int(x)) if x == int(x) else f"{x:g}" for x in xs])
    axes.minorticks_off()
    axes.set_xlabel(plot.x.replace("_", " "))


def tradeoff(panel: Panel, plot: Plot) -> Drawn | None:
    """Latency over throughput; the load grows along each line."""
    _, axes = drawing.new_figure()
    for number, line in enumerate(panel.lines):
        for share, style in (("p50", "-"), ("p99", ":")):
            pairs = [
                (
                    mark.middle,
                    median(s.latency_ms[share] for s in mark.samples if share in s.latency_ms),
                    mark,
                )
                for mark in line.marks
                if any(share in sample.latency_ms for sample in mark.samples)
            ]
            (drawn,) = axes.plot(
                [rate for rate, _, _ in pairs],
                [value for _, value, _ in pairs],
                style,
                marker="o",
                markersize=4,
                color=drawing.colour_of(number),
                linewidth=1.8,
                label=f"{line.name} {share}".strip(),
            )
            drawn.set_gid(f"{share}-{number}")
            if share == "p50":
                for rate, value, mark in pairs:
                    axes.annotate(
                        shown(mark.x),
                        (rate, value),
                        textcoords="offset points",
                        xytext=(4, -10),
                        fontsize=8,
                        color=drawing.INK,
                    )
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    _plain_log_labels(axes)
    drawing.plain_numbers(axes.xaxis)
    axes.set_xlabel("requests per second")
    axes.set_ylabel("latency, ms")
    drawing.legend(axes)
    what = f"latency by throughput; beside the points: {plot.x.replace('_', ' ')}"
    return _finish(panel, axes, findings.tradeoff(panel, plot), what)


def _plain_log_labels(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def latency_percentiles(panel: Panel, plot: Plot) -> Drawn | None:
    """Latency by share of requests, on an axis of nines."""
    _, axes = drawing.new_figure()
    tails: dict[str, tuple[float, float]] = {}
    last = 0.9
    for number, line in enumerate(panel.lines):
        points = percentiles.curve(sample for mark in line.marks for sample in mark.samples)
        if not points:
            continue
        tails[line.name] = (percentiles.value_at(points, 0.5), percentiles.value_at(points, 0.99))
        last = max(last, points[-1][0])
        (drawn,) = axes.plot(
            [1 / (1 - share) for share, _ in points],
            [value for _, value in points],
            linewidth=1.8,
            color=drawing.colour_of(number),
            label=line.name or None,
        )
        drawn.set_gid(f"line-{number}")
    if not tails:
        return None
    axes.set_xscale("log")
    ticks = [share for share in NINES if (1 - share) * 1.1 >= 1 - last]
    axes.set_xticks([1 / (1 - share) for share in ticks], [f"{share * 100:g} %" for share in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the requests that took at most so long")
    axes.set_ylabel("latency, ms")
    return _finish(panel, axes, findings.percentiles(tails), "distribution of latencies")


def timeline(panel: Panel, plot: Plot) -> Drawn | None:
    """Throughput over time, with the events. Of repetitions, the one whose pause is the median is drawn."""
    chosen = [
        (line.name, _typical([s for mark in line.marks for s in mark.samples if s.series]))
        for line in panel.lines
    ]
    drawn_samples = [(name, sample) for name, sample in chosen if sample is not None]
    if not drawn_samples:
        return None
    _, axes = drawing.new_figure()
    for number, (name, sample) in enumerate(drawn_samples):
        event_at = sample.events[0].at_seconds if sample.events else 0.0
        begins = [each.at_seconds - event_at for each in sample.series]
        drawn = axes.stairs(
            [each.requests / each.slice_seconds for each in sample.series],
            [*begins, begins[-1] + sample.series[-1].slice_seconds],
            color=drawing.colour_of(number),
            linewidth=1.4,
            label=name or None,
            baseline=None,
        )
        drawn.set_gid(f"line-{number}")
    events = [
        (round(event.at_seconds - sample.events[0].at_seconds, 1), event.name)
        for _, sample in drawn_samples
        for event in sample.events
    ]
    for at, name in dict.fromkeys(events):
        axes.axvline(at, color=drawing.MARK, linewidth=1.4, linestyle=(0, (2, 2))).set_gid(f"event-{name}")
        axes.annotate(
            name,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(3, -10),
            fontsize=9,
            color=drawing.MARK,
        )
    axes.set_ylim(bottom=0)
    drawing.plain_numbers(axes.yaxis)
    axes.set_xlabel("seconds since the fault began")
    axes.set_ylabel("requests per second")
    return _finish(panel, axes, findings.timeline(panel), "throughput over time")


def _typical(samples: list[Sample]) -> Sample | None:
    ranked = sorted(samples, key=lambda sample: sample.figures.get("pause_ms", 0.0))
    return ranked[len(ranked) // 2] if ranked else None


def distribution(panel: Panel, plot: Plot) -> Drawn | None:
    """Every repetition's value, in order: how many were at most so long."""
    _, axes = drawing.new_figure()
    for number, line in enumerate(panel.lines):
        values = sorted(value for mark in line.marks for value in mark.values)
        (drawn,) = axes.step(
            [values[0], *values],
            [100 * share / len(values) for share in range(len(values) + 1)],
            where="post",
            color=drawing.colour_of(number),
            linewidth=1.8,
            label=line.name or None,
            marker=".",
        )
        drawn.set_gid(f"line-{number}")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 103)
    axes.set_xlabel(plot.y_label)
    axes.set_ylabel("% at most so long")
    return _finish(panel, axes, findings.distribution(panel, plot), f"{plot.y_label}, every repetition")


def bars(panel: Panel, plot: Plot) -> Drawn | None:
    """Groups of bars: by x, one for each line."""
    _, axes = drawing.new_figure()
    xs = list(dict.fromkeys(mark.x for mark in panel.marks))
    width = 0.8 / len(panel.lines)
    for number, line in enumerate(panel.lines):
        places = [xs.index(mark.x) + (number - (len(panel.lines) - 1) / 2) * width for mark in line.marks]
        drawn = axes.bar(
            places,
            [mark.middle for mark in line.marks],
            width * 0.92,
            color=drawing.colour_of(number),
            yerr=[
                [mark.middle - mark.low for mark in line.marks],
                [mark.high - mark.middle for mark in line.marks],
            ],
            ecolor=drawing.INK,
            capsize=2.5,
            label=line.name or None,
        )
        for bar, mark in zip(drawn, line.marks, strict=True):
            bar.set_gid(f"bar-{number}-{shown(mark.x)}")
            axes.annotate(
                findings.number(mark.middle),
                (bar.get_x() + bar.get_width() / 2, mark.high),
                ha="center",
                textcoords="offset points",
                xytext=(0, 3),
                fontsize=8,
                color=drawing.INK,
            )
    axes.set_xticks(range(len(xs)), [shown(x) for x in xs])
    axes.set_ylim(0, max(mark.high for mark in panel.marks) * 1.15 or 1)
    drawing.plain_numbers(axes.yaxis)
    if plot.x and not any(isinstance(x, str) for x in xs):
        axes.set_xlabel(plot.x.replace("_", " "))
    axes.set_ylabel(plot.y_label)
    return _finish(panel, axes, findings.bars(panel, plot), plot.y_label)


def ratios(panel: Panel, plot: Plot) -> Drawn | None:
    """Each line as a multiple of the first one, with the bar that it is to clear."""
    from etcray_bench.report.versus import rate_bar

    base = {mark.x: mark for mark in panel.lines[0].marks}
    lines = [line for line in panel.lines[1:] if any(mark.x in base for mark in line.marks)]
    if not lines:
        return None
    xs = list(base)
    _, axes = drawing.new_figure(height=0.9 + 0.45 * len(xs) * max(1, len(lines)))
    height = 0.8 / len(lines)
    cleared, wanted = 0, 0
    for number, line in enumerate(lines):
        for mark in (mark for mark in line.marks if mark.x in base):
            place = xs.index(mark.x) + (number - (len(lines) - 1) / 2) * height
            ratio = mark.middle / base[mark.x].middle
            low, high = mark.low / base[mark.x].high, mark.high / base[mark.x].low
            (bar,) = axes.barh(
                place,
                ratio,
                height * 0.9,
                color=drawing.colour_of(number),
                xerr=[[ratio - low], [high - ratio]],
                ecolor=drawing.INK,
                capsize=2.5,
                label=line.name if mark is line.marks[0] else None,
            )
            bar.set_gid(f"bar-{number}-{shown(mark.x)}")
            axes.annotate(
                f"{ratio:.2f}",
                (high, place),
                textcoords="offset points",
                xytext=(4, -3),
                fontsize=9,
                color=drawing.INK,
            )
            least = rate_bar(str(mark.x))
            if least is not None:
                cleared, wanted = cleared + (ratio >= least), wanted + 1
                axes.plot(
                    [least, least],
                    [place - height / 2, place + height / 2],
                    color=drawing.MARK,
                    linewidth=2.5,
                )
    axes.axvline(1.0, color=drawing.INK, linewidth=1.0)
    axes.set_yticks(range(len(xs)), [str(x) for x in xs])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"throughput, as a multiple of {panel.lines[0].name}'s")
    title = f"{cleared} of {wanted} bars for throughput cleared" if wanted else findings.bars(panel, plot)
    return _finish(panel, axes, title, f"multiples of {panel.lines[0].name}; thick marks: the bar")


Draw = Callable[[Panel, Plot], Drawn | None]
KINDS: Final[Mapping[str, Draw]] = {
    "scaling": scaling,
    "tradeoff": tradeoff,
    "percentiles": latency_percentiles,
    "timeline": timeline,
    "distribution": distribution,
    "bars": bars,
    "ratios": ratios,
}
