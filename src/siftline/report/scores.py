"""Chart of the scores, which follows the threshold that the reader tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from siftline.report.drawing import ACCENT, BAND, INK, WIDTH, blank, label_lines, svg
from siftline.report.text import count, number
from siftline.report.what_if import WhatIf
from siftline.types import Float64s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = 96


@dataclass(frozen=True)
class Distribution:
    """The chart, and the x position of every threshold in it."""

    svg: Markup
    places: list[float]


def distribution(what_if: WhatIf, total: int) -> Distribution:
    """Draw how many rows have which score; the accent fills those from the threshold upwards."""
    from matplotlib.transforms import Bbox

    lowest, highest = float(what_if.scores[0]), float(what_if.scores[-1])
    wide = lowest > 0 and highest > 50 * lowest
    edges, heights = _bars(what_if, lowest, highest, wide)
    floor = min(0.5, float(heights[heights > 0].min()) / 2)
    figure, (axes,) = blank(210)
    axes.set_title("Rows by score, logarithmic")
    axes.set(xscale="log" if wide else "linear", yscale="log")
    axes.stairs(heights, edges, baseline=floor, fill=True, color=BAND)
    flagged = axes.stairs(heights, edges, baseline=floor, fill=True, color=ACCENT, gid="flagged")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(floor, heights.max() * 2))
    _label(axes, wide)
    points = np.column_stack([what_if.scores, np.full(len(what_if.scores), floor)])
    places = [round(float(x), 1) for x in axes.transData.transform(points)[:, 0]]
    box = axes.bbox
    flagged.set_clip_path(None)
    flagged.set_clip_box(Bbox.from_extents(places[what_if.present], box.y0, box.x1, box.y1))
    threshold = float(what_if.scores[what_if.present])
    axes.axvline(threshold, color=INK, linewidth=1, gid="threshold")
    label = (
        f"Distribution of the scores of {count(total)} rows, from {number(lowest)} to {number(highest)}. "
        f"The threshold {number(threshold)} flags {count(int(what_if.rows[what_if.present]))} of them."
    )
    return Distribution(svg(figure, "distribution", label), places)


def _bars(what_if: WhatIf, lowest: float, highest: float, wide: bool) -> tuple[Float64s, Float64s]:
    """Return edges of bars, and the rows between them, each per the width of a usual bar."""
    grid = (np.geomspace if wide else np.linspace)(lowest, highest, _BARS + 1)
    edges, rows = what_if.between(grid)
    beyond = highest * grid[1] / grid[0] if wide else highest + grid[1] - grid[0]
    edges = np.append(edges, max(beyond, np.nextafter(highest, np.inf)))
    widths = np.diff(np.log(edges) if wide else edges)
    return edges, rows / widths * np.median(widths)


def _label(axes: Axes, wide: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    label_lines(axes, number, LogLocator(numticks=4))
    found = (LogLocator(numticks=6) if wide else MaxNLocator(6)).tick_values(*axes.get_xlim())
    floor = axes.get_ylim()[0]
    # Where their labels are within the chart.
    inside = [value for value in found if 15 < axes.transData.transform((value, floor))[0] < WIDTH - 30]
    axes.set_xticks(inside, [number(value) for value in inside])
    axes.set_xticks([], minor=True)
