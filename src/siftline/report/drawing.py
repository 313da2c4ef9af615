"""Drawing of charts: matplotlib's SVG, made part of a page.

Colours become variables of the page's style sheet, so that a chart follows its light and dark scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

WIDTH = 720.0  # points, and units of the SVG
_INCH = 72

# Stand-ins for the variables of the style sheet.
INK, SOFT, LINE, ACCENT, BAND = (f"#00000{number}" for number in range(1, 6))
_VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", ACCENT: "--accent", BAND: "--band"}
# The page's style sheet has the font; comments and numbered ids serve nobody on a page of several charts.
_CLUTTER = re.compile(
    r'<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|font-family: [^;"]*;?'
    r'| id="[A-Za-z0-9.]+_\d+"',
    re.S,
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-99, 99),
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "xtick.major.pad": 6,
    "ytick.color": SOFT,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style of charts, whatever settings of matplotlib the user has."""
    import matplotlib

    # Of numbers at the limits of floats, only the ticks suffer.
    with matplotlib.rc_context(), np.errstate(all="ignore"):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def blank(height: float, rows: int = 1, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, one above the other, as wide as the figure.

    Labels of the y axis stand on their lines, because a narrow screen has no room beside the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _INCH, height / _INCH), dpi=_INCH)
    room = {"left": 0.002, "right": 0.998, "top": 1 - 30 / height, "bottom": 24 / height, "hspace": 0.5}
    axes = list(figure.subplots(rows, 1, squeeze=False, sharex=True, gridspec_kw=room).flat)
    for one in axes:
        one.margins(x=0)
        one.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def svg(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as SVG for a page; `name` keeps its ids apart, `label` says what it shows."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = name
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = _CLUTTER.sub("", text.getvalue().partition("<svg")[2].partition(">")[2])
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable})")
    width, height = figure.get_size_inches() * _INCH
    head = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(width, height, label) + Markup(re.sub(r"\s*\n\s*", " ", drawn))  # noqa: S704  no text from data


def label_places(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """Label places of the x axis, the outermost within the chart."""
    axes.set_xticks(places, names)
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def label_lines(axes: Axes, form: Callable[[float], str], locator: Locator) -> None:
    """Draw the lines that a locator proposes across a chart, and their values over whatever is there."""
    low, high = axes.get_ylim()
    left = axes.get_xlim()[0]
    values = [value for value in locator.tick_values(low, high) if low < value < high]
    # Under the title there is no room for a value.
    values = [value for value in values if axes.transData.transform((left, value))[1] < axes.bbox.y1 - 8]
    axes.set_yticks(values, [""] * len(values))
    axes.set_yticks([], minor=True)
    style: dict[str, Any] = {"va": "bottom", "color": SOFT, "zorder": 5}
    for value in values:
        axes.text(0.001, value, form(value), transform=axes.get_yaxis_transform(), **style)
