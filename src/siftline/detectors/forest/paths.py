"""Features on the way of a row down the trees: no other one can change its score."""

from __future__ import annotations

from typing import Any

import numpy as np

from siftline.types import Mask, Matrix

# With fewer features nearly all are on the way, and scoring is cheaper than looking.
_MANY = 256


def features_on_paths(forest: Any, matrix: Matrix) -> Mask:
    """Return a mask of the features whose change may change the score of a row, all of shape (n, d)."""
    if matrix.shape[1] < _MANY:
        return np.ones(matrix.shape, dtype=np.bool_)
    found = np.zeros(matrix.shape, dtype=np.bool_)
    rows = np.asarray(matrix, dtype=np.float32, order="C")
    everything = np.arange(rows.shape[1])
    for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        seen = rows if np.array_equal(features, everything) else rows[:, features]
        path = estimator.tree_.decision_path(seen).tocoo()
        split = estimator.tree_.feature[path.col]
        inner = split >= 0
        found[path.row[inner], np.asarray(features)[split[inner]]] = True
    return found
