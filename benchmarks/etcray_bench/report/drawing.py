"""matplotlib as it is used here: figures to SVG whose colours are those of the page.

matplotlib knows one colour for a thing, and a page has two, for light and for dark. So things are drawn in
stand-in colours, each of which becomes a variable of the page's style sheet in the finished SVG.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

from etcray_bench.errors import LaboratoryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SERIES: Final = tuple(f"#0{number}fe0{number}" for number in range(8))
INK: Final = "#01fe10"
GRID: Final = "#01fe11"
MARK: Final = "#01fe12"
"""Of events."""
VARIABLES: Final = {
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
    INK: "var(--ink)",
    GRID: "var(--grid)",
    MARK: "var(--mark)",
}
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "etcray",
    "path.simplify": False,  # every point that was measured is in the page
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
}

_OWN_IDS: Final = re.compile(
    r' id="(?:figure|axes|patch|text|line2d|legend|matplotlib\.axis|[xy]tick|\w*Collection)_\d+"'
)


def new_figure(width: float = 7.2, height: float = 3.4) -> tuple[Figure, Axes]:
    """One pair of axes, in inches. Raises LaboratoryError if matplotlib is not installed."""
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


LEGEND_COLUMNS: Final = 4


def legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing. Its colours are looked up when it is made: in here."""
    figure = axes.get_figure()
    assert figure is not None, "axes without a figure"
    with import_matplotlib().rc_context(STYLE):
        handles, labels = axes.get_legend_handles_labels()
        columns = min(len(handles), LEGEND_COLUMNS)
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=9)


def plain_numbers(axis: Axis) -> None:
    """Thousands are told apart, and nothing is in powers of ten."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def import_matplotlib() -> Any:
    """Raises LaboratoryError if it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise LaboratoryError("plots need matplotlib: pip install 'etcray[lab]'") from error
    return matplotlib


def to_svg(figure: Figure, description: str) -> str:
    """As an element of a page."""
    matplotlib = import_matplotlib()
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = _OWN_IDS.sub("", svg)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def colour_of(number: int) -> str:
    return SERIES[number % len(SERIES)]
