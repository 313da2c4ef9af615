"""The curve of thresholds: how many rows any other threshold would flag, without another look at scores."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np

from siftline.jobs.findings import EVERY_POINT, Curve
from siftline.stages.threshold import bucket_edges
from siftline.types import Float64s, Ints, ScoreSummary

_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999)
_MORE_POINTS = 1_000
_EDGES = 400


def curve_of(summary: ScoreSummary, high: Float64s, floor: float, threshold: float) -> Curve:
    """Return the curve of all scores: exact from `floor`, below it at the edges of the summary's buckets.

    `high`, of shape (n,), has all scores from `floor` upwards, ascending; `threshold` is not below it.
    """
    lowest = float(summary.minimum or 0.0)
    points = np.unique(np.append(high, threshold))[::-1]
    reaching = len(high) - np.searchsorted(high, points)
    edges, edge_rows = bucket_edges(summary)
    below = (edges < floor) & (edges > lowest)
    edges, edge_rows = edges[below], edge_rows[below]
    if floor > lowest:
        edges, edge_rows = np.append(edges, lowest), np.append(edge_rows, summary.rows - summary.non_finite)
    quantiles = tuple((share, _quantile(share, summary, high)) for share in _QUANTILES)
    always = [threshold, *(score for _, score in quantiles)]
    kept = np.union1d(_spread(reaching, EVERY_POINT, _MORE_POINTS), np.flatnonzero(np.isin(points, always)))
    rest = np.union1d(_spread(edge_rows, 1, _EDGES), np.flatnonzero(np.isin(edges, always)))
    return Curve(
        scores=(*points[kept].tolist(), *edges[rest].tolist()),
        rows=(*reaching[kept].tolist(), *edge_rows[rest].tolist()),
        exact_from=max(floor, lowest),
        thinned=len(kept) < len(points),
        quantiles=quantiles,
    )


def _spread(rows: Ints, first: int, more: int) -> Ints:
    """Return the points to keep: the `first` ones, and `more`, evenly by the logarithm of ascending rows."""
    if len(rows) <= first + more:
        return np.arange(len(rows))
    wanted = np.geomspace(max(1, rows[first]), rows[-1], more)
    spread = np.searchsorted(rows, wanted).clip(max=len(rows) - 1)
    return np.union1d(np.arange(first), spread)


def _quantile(share: float, summary: ScoreSummary, high: Float64s) -> float:
    """Return the score that at most the rest of the rows exceed; below the exact ones, its bucket's edge."""
    rows = summary.rows - summary.non_finite
    rank = max(1, math.ceil((1 - Decimal(repr(share))) * rows))
    if rank <= len(high):
        return float(high[-rank])
    edges, reaching = bucket_edges(summary)
    edge = float(edges[np.searchsorted(reaching, rank)])
    return max(edge, float(summary.minimum or 0.0))
