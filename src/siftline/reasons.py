"""Why a row is anomalous: what each feature adds to its score, for any detector.

For every feature two questions are put to the detector: how much lower is the row's score with this
feature at its typical value (all others as they are), and how much higher is a typical row's score with
this feature as it is in the row? The contribution is the mean of the two. They are the last and the first
marginal contribution of the Shapley value with a typical row as baseline (Lundberg and Lee, A Unified
Approach to Interpreting Model Predictions, 2017; Covert, Lundberg and Lee, Explaining by Removing, 2021).
The first question alone would miss features that say the same thing twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from siftline.models import FittedModel, Typical
from siftline.types import Feature, Float64s, Matrix

REASON = pa.struct(
    [
        pa.field("feature", pa.string()),
        pa.field("value", pa.string()),
        pa.field("typical", pa.string()),
        pa.field("direction", pa.string()),
        pa.field("distance", pa.float64()),
        pa.field("contribution", pa.float64()),
    ]
)
_TOP = 3
_STACK_ROWS = 65_536


def explain(model: FittedModel, matrix: Matrix, scores: Float64s) -> pa.Array:
    """Give the reasons of rows.

    Parameters
    ----------
    model : FittedModel
        What scored them.
    matrix : ndarray of shape (n, d)
        The rows' raw matrix.
    scores : ndarray of shape (n,), float64
        The rows' scores.

    Returns
    -------
    ListArray of length n
        Up to three reasons a row, the largest contribution first: the feature, its value and the typical
        one as text, the direction (``high``, ``low``, ``missing``, ``other``), the distance from typical
        in robust standard deviations (null where there is no such thing), and the contribution to the
        score.
    """
    contributions = _contributions(model, matrix, scores)
    top = np.argsort(-contributions, axis=1, kind="stable")[:, :_TOP]
    counts = np.maximum(1, (np.take_along_axis(contributions, top, axis=1) > 0).sum(axis=1))
    reasons = [
        _reason(model, column, float(matrix[row, column]), float(contributions[row, column]))
        for row in range(len(matrix))
        for column in top[row, : counts[row]].tolist()
    ]
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(reasons, type=REASON))


def _contributions(model: FittedModel, matrix: Matrix, scores: Float64s) -> Float64s:
    """Return the contributions, of shape (n, d)."""
    rows, width = matrix.shape
    typical: Matrix = np.empty_like(matrix, shape=(1, width))
    typical[0] = [one.value for one in model.typical]
    baseline = float(model.score(typical)[0])
    contributions = np.empty((rows, width), dtype=np.float64)
    step = max(1, _STACK_ROWS // (2 * width))
    for start in range(0, rows, step):
        block = matrix[start : start + step]
        without = np.repeat(block[:, None, :], width, axis=1)
        only = np.broadcast_to(typical, without.shape).copy()
        diagonal = np.arange(width)
        without[:, diagonal, diagonal] = typical
        only[:, diagonal, diagonal] = block
        stacked: Matrix = np.concatenate([without.reshape(-1, width), only.reshape(-1, width)])
        lower, higher = model.score(stacked).reshape(2, len(block), width)
        drop = scores[start : start + step, None] - lower
        contributions[start : start + step] = (drop + (higher - baseline)) / 2
    return contributions


def _reason(model: FittedModel, column: int, value: float, contribution: float) -> dict[str, object]:
    feature, typical = model.features[column], model.typical[column]
    direction, distance = _direction(feature, typical, value)
    categories = model.categories.get(feature.name)
    return {
        "feature": feature.name,
        "value": _text(value, categories),
        "typical": _text(typical.value, categories),
        "direction": direction,
        "distance": distance,
        "contribution": contribution,
    }


def _direction(feature: Feature, typical: Typical, value: float) -> tuple[str, float | None]:
    if np.isnan(value):
        return "missing", None
    # On a circle or among categories nothing is higher than another.
    if feature.kind == "categorical" or feature.period is not None:
        return "other", None
    distance = abs(value - typical.value) / typical.spread if typical.spread else None
    return "high" if value > typical.value else "low" if value < typical.value else "other", distance


def _text(value: float, categories: Sequence[str] | None) -> str:
    if np.isnan(value):
        return "missing"
    if categories is not None:
        return categories[int(value)] if value >= 0 else "unknown"
    return f"{value:.6g}"
