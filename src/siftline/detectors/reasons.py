"""Reasons for a score: the contribution of each feature, for any detector.

For each feature the detector answers two questions: how much lower is the row's score with this
feature at its typical value, and how much higher is a typical row's score with the row's value of this
feature? The contribution is the mean of the two. They are the last and the first
marginal contribution of the Shapley value with a typical row as baseline (Lundberg and Lee, A Unified
Approach to Interpreting Model Predictions, 2017; Covert, Lundberg and Lee, Explaining by Removing, 2021).
The first question alone would miss redundant features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from siftline.detectors.fitted import FittedModel
from siftline.types import Float64s, Ints, Matrix

REASON = pa.struct(
    {
        **dict.fromkeys(["feature", "value", "typical", "direction"], pa.string()),
        **dict.fromkeys(["distance", "contribution"], pa.float64()),
    }
)
_TOP = 3


def explain(model: FittedModel, matrix: Matrix, scores: Float64s, rows_at_once: int = 65_536) -> pa.Array:
    """Return the reasons for the scores, of shape (n,), of a raw matrix of shape (n, d).

    A row has up to three reasons, the largest contribution first: the feature, its value and the typical one
    as text, the direction (``high``, ``low``, ``missing``, ``other``), the distance from typical in robust
    standard deviations (null if undefined), and the contribution to the score. `rows_at_once` bounds memory.
    """
    top, contributions = _top_contributions(model, matrix, scores, rows_at_once)
    counts = np.maximum(1, (contributions > 0).sum(axis=1))
    chosen = np.arange(top.shape[1]) < counts[:, None]
    columns = top[chosen]
    values = matrix[np.repeat(np.arange(len(matrix)), counts), columns].astype(np.float64)
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    reasons = _reasons(model, columns, values, contributions[chosen])
    return pa.ListArray.from_arrays(pa.array(offsets), reasons)


def _top_contributions(
    model: FittedModel, matrix: Matrix, scores: Float64s, rows_at_once: int
) -> tuple[Ints, Float64s]:
    """Return the features that contribute most to each row, and the amounts, of shape (n, at most 3)."""
    rows, width = matrix.shape
    typical: Matrix = np.empty_like(matrix, shape=(1, width))
    typical[0] = [one.value for one in model.typical]
    baseline = float(model.score(typical)[0])
    top = np.empty((rows, min(width, _TOP)), dtype=np.int64)
    contributions = np.empty(top.shape)
    step = max(1, rows_at_once // (2 * width))
    for start in range(0, rows, step):
        present, stop = matrix[start : start + step], start + step
        without = np.repeat(present[:, None, :], width, axis=1)
        only = np.broadcast_to(typical, without.shape).copy()
        diagonal = np.arange(width)
        without[:, diagonal, diagonal] = typical
        only[:, diagonal, diagonal] = present
        stacked: Matrix = np.concatenate([without.reshape(-1, width), only.reshape(-1, width)])
        lower, higher = model.score(stacked).reshape(2, len(present), width)
        found = ((scores[start:stop, None] - lower) + (higher - baseline)) / 2
        top[start:stop] = np.argsort(-found, axis=1, kind="stable")[:, :_TOP]
        contributions[start:stop] = np.take_along_axis(found, top[start:stop], axis=1)
    return top, contributions


def _reasons(model: FittedModel, columns: Ints, values: Float64s, contributions: Float64s) -> pa.StructArray:
    """Return a reason for each feature and value, all arguments of shape (n,)."""
    typical, spread = np.array([[one.value, one.spread] for one in model.typical]).T
    # Periodic values and categories have no order.
    ordered = np.array([one.kind != "categorical" and one.period is None for one in model.features])[columns]
    difference = values - typical[columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(difference) / spread[columns]
    direction = np.select(
        [np.isnan(values), ordered & (difference > 0), ordered & (difference < 0)],
        ["missing", "high", "low"],
        "other",
    )
    categories = [model.categories.get(feature.name) for feature in model.features]
    texts = [_text(value, categories[column]) for column, value in zip(columns, values.tolist(), strict=True)]
    names = pa.array([feature.name for feature in model.features], pa.string())
    usual = pa.array([_text(one.value, known) for one, known in zip(model.typical, categories, strict=True)])
    return pa.StructArray.from_arrays(
        [
            names.take(pa.array(columns)),
            pa.array(texts, pa.string()),
            usual.take(pa.array(columns)),
            pa.array(direction, pa.string()),
            pa.array(distance, mask=~ordered | ~np.isfinite(distance)),
            pa.array(contributions),
        ],
        fields=list(REASON),
    )


def _text(value: float, categories: Sequence[str] | None) -> str:
    if math.isnan(value):
        return "missing"
    if categories is not None:
        return categories[int(value)] if value >= 0 else "unknown"
    return f"{value:.6g}"
