"""Histogram of scores on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from siftline.jobs.findings import Curve

_RANGES = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def histogram(curve: Curve, threshold: float, width: int, blocks: bool) -> Iterator[str]:
    """Yield a line for each of some ranges of scores: its lower end, its rows, and a bar.

    Ranges end at points of the curve, so that the rows are exact. A bar is as long as the logarithm of its
    rows; it is of `blocks`, or else of ASCII.
    """
    scores, rows = np.array(curve.scores), np.array(curve.rows)
    lower = _lower_ends(scores, int(np.searchsorted(-scores, -threshold)))
    counts = np.diff(rows[lower], prepend=0).tolist()
    labels = [f"{score:.4f}" for score in scores[lower].tolist()]
    amounts = [f"{count:,}" for count in counts]
    first, second = max(map(len, labels)), max(map(len, amounts))
    room = max(8, width - first - second - len(_MARK) - 4)
    full = math.log1p(max(counts)) or 1.0
    for place, label, amount, count in zip(lower.tolist(), labels, amounts, counts, strict=True):
        mark = _MARK if scores[place] == threshold else ""
        bar = _bar(room * math.log1p(count) / full, blocks)
        yield f"{label:>{first}}  {amount:>{second}}  {bar}{mark}".rstrip()


_MARK = "  <- threshold"


def _lower_ends(scores: np.ndarray, threshold: int) -> np.ndarray:
    """Return the points nearest to equal steps, the threshold among them, from the highest score."""
    wanted = np.linspace(scores[0], scores[-1], _RANGES)
    after = np.searchsorted(-scores, -wanted).clip(1, max(1, len(scores) - 1))
    nearer = np.abs(scores[after - 1] - wanted) < np.abs(scores[after.clip(max=len(scores) - 1)] - wanted)
    near = np.where(nearer, after - 1, after).clip(max=len(scores) - 1)
    apart = near[np.abs(near - threshold) > 0]
    return np.union1d(apart, [threshold, len(scores) - 1])


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * round(length)
    whole, eighths = divmod(round(8 * length), 8)
    return "█" * whole + _EIGHTHS[eighths]
