"""Charts of anomalies over time, of a run's throughput, and of earlier publications."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from siftline.jobs.findings import Findings
from siftline.jobs.history import Publication
from siftline.jobs.live import Sample
from siftline.report.drawing import ACCENT, BAND, INK, blank, label_lines, label_places, svg
from siftline.report.text import count, duration, number, percent, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Form = Callable[[float], str]
# More have no room between them.
_MOST_BARS = 150


def occurrences(findings: Findings, rows: int) -> Markup | None:
    """Draw the anomalies over time or, without a carried timestamp, in the order of the rows."""
    if findings.times:
        counts = [found for _, found in findings.times]
        names, axis = _names([start for start, _ in findings.times]), "time"
    else:
        counts = list(findings.positions)
        names, axis = [count(rows * place // len(counts)) for place in range(len(counts))], "row"
    if len(counts) < 2:
        return None
    figure, (axes,) = blank(150)
    axes.set_title(f"Anomalies by {axis}")
    if len(counts) < _MOST_BARS:
        axes.bar(range(len(counts)), counts, width=0.8, color=ACCENT, align="edge")
    else:
        axes.stairs(counts, fill=True, color=ACCENT)
    axes.set(xlim=(0, len(counts)), ylim=(0, max(1, *counts) * 1.25))
    places = sorted({round(part * (len(counts) - 1)) for part in (0, 0.25, 0.5, 0.75, 1)})
    label_places(axes, places, [names[place] for place in places])
    _lines(axes, number)
    most = max(counts)
    label = f"Anomalies by {axis}, in {len(counts)} intervals. The most, {count(most)}, begin at "
    return svg(figure, "occurrences", label + names[counts.index(most)] + ".")


def _names(starts: Sequence[str]) -> list[str]:
    """Return short names of times in ISO 8601, which may be of any year."""
    days = [start.partition("T")[0] for start in starts]
    first, last = np.array([days[0], days[-1]], dtype="datetime64[D]")
    if last - first > np.timedelta64(2, "D"):
        return days
    clocks = [start.partition("T")[2][:5] for start in starts]
    return [f"{day[-5:]} {clock}" for day, clock in zip(days, clocks, strict=True)]


def throughput(timeline: Sequence[Sample]) -> Markup | None:
    """Draw rows per second with the retries, and the memory of the workers."""
    steps = [(before, after) for before, after in pairwise(timeline) if after.at > before.at]
    if len(steps) < 2:
        return None
    start = steps[0][0].at
    seconds = [(one.at - start).total_seconds() for one in (steps[0][0], *(after for _, after in steps))]
    speeds = [max(0, b.rows - a.rows) / (b.at - a.at).total_seconds() for a, b in steps]
    retried = [(b.at - start).total_seconds() for a, b in steps if b.retries > a.retries]
    used = [after.memory for _, after in steps]
    figure, (rows, memory) = blank(250, rows=2)
    rows.set_title("Rows per second" + (", and retries (triangles)" if retried else ""))
    rows.stairs(speeds, seconds, fill=True, color=BAND)
    rows.plot(retried, [0] * len(retried), "^", color=ACCENT, markersize=7, clip_on=False, zorder=6)
    rows.set(xlim=(0, seconds[-1]), ylim=(0, max(1, *speeds) * 1.25))
    memory.set_title("Memory of the workers")
    memory.stairs(used, seconds, fill=True, color=BAND)
    memory.set_ylim(0, max(1, *used) * 1.25)
    _lines(rows, number)
    _lines(memory, size, 3)
    places = np.linspace(0, seconds[-1], 5).tolist()
    label_places(memory, places, [duration(place) for place in places])
    label = (
        f"Throughput over {duration(seconds[-1])}: up to {count(round(max(speeds)))} rows per second, "
        f"retries at {len(retried)} times; up to {size(max(used))} of memory."
    )
    return svg(figure, "throughput", label)


def past(history: Sequence[Publication]) -> list[Markup]:
    """Draw rows, share of anomalies, duration and threshold of the last publications, one chart each."""
    measures: list[tuple[str, Form, list[float | None]]] = [
        ("Rows", number, [one.rows for one in history]),
        ("Share of anomalies", percent, [one.rate for one in history]),
        ("Duration", duration, [one.duration_seconds for one in history]),
        ("Threshold", number, [one.threshold for one in history]),
    ]
    days = [one.published_at[:10] for one in history]
    return [
        _past(title, form, values, days)
        for title, form, values in measures
        if sum(value is not None for value in values) > 1
    ]


def _past(title: str, form: Form, values: Sequence[float | None], days: Sequence[str]) -> Markup:
    known = np.array([math.nan if value is None else value for value in values])
    place = int(np.flatnonzero(~np.isnan(known))[-1])
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    room = (high - low) * 0.4 or abs(high) * 0.1 or 1.0
    figure, (axes,) = blank(120, width=340)
    axes.set_title(title)
    axes.plot(known, color=BAND, linewidth=1.5)
    axes.plot(known, "o", color=INK, markersize=3, clip_on=False)
    axes.plot(place, known[place], "o", color=ACCENT, markersize=7, clip_on=False)
    axes.set(xlim=(-len(known) * 0.15, len(known) - 0.7), ylim=(low - room, high + room))
    label_places(axes, [axes.get_xlim()[0], len(known) - 0.7], [days[0], days[-1]])
    _lines(axes, form, 3)
    label = f"{title} of the last {len(values)} publications: {form(low)} to {form(high)}, now "
    return svg(figure, f"past-{title}", label + form(known[place]) + ".")


def _lines(axes: Axes, form: Form, most: int = 4) -> None:
    from matplotlib.ticker import MaxNLocator

    label_lines(axes, form, MaxNLocator(most))
