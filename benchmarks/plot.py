"""The plot: wall time by tool, and the floor, for every size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.records import FLOOR, LABELS, SIFTLINE, Proof, Speed

_OURS, _THEIRS, _LINE = "#0b6e4f", "#9aa5b1", "#c0392b"


def plot(proof: Proof, path: Path) -> None:
    """Write the plot as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = max(len(speed.runs) for speed in proof.speeds)
    # Text stays text, and the same numbers give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "siftline", "font.size": 9}):
        figure = Figure(figsize=(5 * len(proof.speeds), 1.3 + 0.32 * rows), layout="constrained")
        every = figure.subplots(1, len(proof.speeds), squeeze=False)[0]
        for axes, speed in zip(every, proof.speeds, strict=True):
            _bars(axes, speed)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Any, speed: Speed) -> None:
    names = [name for name in speed.runs if name != FLOOR]
    walls = [speed.median(name, "wall") for name in names]
    colours = [_OURS if name == SIFTLINE else _THEIRS for name in names]
    axes.barh(range(len(names)), walls, color=colours, height=0.7)
    for place, (name, wall) in enumerate(zip(names, walls, strict=True)):
        every = [usage.wall for usage in speed.runs[name]]
        axes.plot([min(every), max(every)], [place, place], color="black", linewidth=1)
        axes.annotate(f"{wall:.1f}", (max(every), place), (4, 0), textcoords="offset points", va="center")
    floor = speed.median(FLOOR, "wall")
    axes.axvline(floor, color=_LINE, linestyle="--", linewidth=1, label=f"only read and write: {floor:.1f} s")
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds, median; the line spans all rounds")
    axes.set_title(f"{speed.rows:,} x 10 rows")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
