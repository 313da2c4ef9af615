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
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from siftline.batch_plan import BATCH_ROWS, batch_rows
from siftline.detectors.fitted import FittedModel
from siftline.detectors.preprocess import UNKNOWN
from siftline.types import Float64s, Ints, Mask, Matrix

REASON = pa.struct(
    {
        **dict.fromkeys(["feature", "value", "typical", "direction"], pa.string()),
        **dict.fromkeys(["distance", "contribution"], pa.float64()),
    }
)
_TOP = 3


def explain(
    model: FittedModel,
    matrix: Matrix,
    scores: Float64s,
    rows_at_once: int = BATCH_ROWS,
    texts: Mapping[str, pa.ChunkedArray] | None = None,
) -> pa.Array:
    """Return the reasons for the scores, of shape (n,), of a raw matrix of shape (n, d).

    A row has up to three reasons, the largest contribution first: the feature, its value and the typical one
    as text, the direction (``high``, ``low``, ``missing``, ``other``), the distance from typical in robust
    standard deviations (null if undefined), and the contribution to the score. A category that the sample
    does not have is in `texts`, by name of its feature. `rows_at_once` bounds memory.
    """
    top, contributions = _top_contributions(model, matrix, scores, rows_at_once)
    counts = np.maximum(1, (contributions > 0).sum(axis=1))
    chosen = np.arange(top.shape[1]) < counts[:, None]
    rows, columns = np.repeat(np.arange(len(matrix)), counts), top[chosen]
    values = matrix[rows, columns].astype(np.float64)
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    shown = _texts(model, rows, columns, values, texts or {})
    reasons = _reasons(model, columns, values, shown, contributions[chosen])
    return pa.ListArray.from_arrays(pa.array(offsets), reasons)


def _top_contributions(
    model: FittedModel, matrix: Matrix, scores: Float64s, rows_at_once: int
) -> tuple[Ints, Float64s]:
    """Return the features that contribute most to each row, and the amounts, of shape (n, at most 3)."""
    rows, width = matrix.shape
    top = np.empty((rows, min(width, _TOP)), dtype=np.int64)
    contributions = np.empty(top.shape)
    step = batch_rows(width, rows_at_once)
    for start in range(0, rows, step):
        these = slice(start, start + step)
        found = _contributions(model, matrix[these], scores[these], step)
        top[these] = np.argsort(-found, axis=1, kind="stable")[:, :_TOP]
        contributions[these] = np.take_along_axis(found, top[these], axis=1)
    return top, contributions


def _contributions(model: FittedModel, matrix: Matrix, scores: Float64s, rows_at_once: int) -> Float64s:
    """Return the contribution of each feature to each row, of shape (n, d)."""
    typical: Matrix = np.empty_like(matrix, shape=(1, matrix.shape[1]))
    typical[0] = [one.value for one in model.typical]
    usual = cast(Matrix, np.broadcast_to(typical, matrix.shape))
    baseline = np.broadcast_to(model.score(typical), scores.shape)
    lower = _scores_changed(model, matrix, usual, scores, model.sensitive(matrix), rows_at_once)
    matters = np.broadcast_to(model.sensitive(typical), matrix.shape)
    higher = _scores_changed(model, usual, matrix, baseline, matters, rows_at_once)
    contributions: Float64s = ((scores[:, None] - lower) + (higher - baseline[:, None])) / 2
    return contributions


def _scores_changed(
    model: FittedModel, matrix: Matrix, values: Matrix, scores: Float64s, matters: Mask, rows_at_once: int
) -> Float64s:
    """Return the scores of rows with one feature at another of `values`, all of shape (n, d).

    Where it does not matter, that is the row's own of `scores`, of shape (n,).
    """
    changed_scores = np.repeat(scores[:, None], matrix.shape[1], axis=1)
    rows, columns = np.nonzero(matters)
    for start in range(0, len(rows), rows_at_once):
        row, column = rows[start : start + rows_at_once], columns[start : start + rows_at_once]
        changed = matrix[row]
        changed[np.arange(len(row)), column] = values[row, column]
        changed_scores[row, column] = model.score(changed)
    return changed_scores


def _texts(
    model: FittedModel, rows: Ints, columns: Ints, values: Float64s, texts: Mapping[str, pa.ChunkedArray]
) -> list[str]:
    """Return values as text; that of an unknown category is the row's own, if there are texts."""
    categories = [model.categories.get(feature.name) for feature in model.features]
    shown = [_text(value, categories[column]) for column, value in zip(columns, values.tolist(), strict=True)]
    for place in np.flatnonzero(values == UNKNOWN).tolist():
        name = model.features[columns[place]].name
        if name in texts and categories[columns[place]] is not None:
            shown[place] = texts[name][int(rows[place])].as_py()
    return shown


def _reasons(
    model: FittedModel, columns: Ints, values: Float64s, shown: Sequence[str], contributions: Float64s
) -> pa.StructArray:
    """Return a reason for each feature and value, all arguments but the model of shape (n,)."""
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
    names = pa.array([feature.name for feature in model.features], pa.string())
    usual = pa.array([_text(one.value, known) for one, known in zip(model.typical, categories, strict=True)])
    return pa.StructArray.from_arrays(
        [
            names.take(pa.array(columns)),
            pa.array(shown, pa.string()),
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
