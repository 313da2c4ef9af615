"""The detector's parameters by the size of the input, and the share of equal rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.cli.starter.profile import Column
from siftline.cli.starter.roles import Roles
from siftline.cli.starter.rows import FirstRows
from siftline.detectors.preprocess import is_numeric

# Features from which on each tree sees more rows: measured, see docs/how-to/choose-a-detector.md.
_WIDE = 20
_MORE_SAMPLES = 4096
_USUAL_SAMPLES = 256
_SAMPLE_ROWS = 200_000
_SAMPLE_CELLS = 50_000_000
_ALIKE = 0.01


def forest_params(features: int, found: FirstRows) -> dict[str, Any]:
    """Return the parameters of an isolation forest for so many features."""
    rows = found.total or found.count
    if features < _WIDE or rows <= _USUAL_SAMPLES:
        return {"n_estimators": 100}
    if found.total is not None and rows <= _MORE_SAMPLES:
        return {"n_estimators": 100, "max_samples": 1.0}  # all of them
    return {"n_estimators": 100, "max_samples": min(rows, _MORE_SAMPLES)}


def sample_rows(features: int) -> int:
    """Return the rows to fit on, fewer of very wide tables."""
    return min(_SAMPLE_ROWS, max(1_000, _SAMPLE_CELLS // max(1, features) // 1_000 * 1_000))


def alike_share(roles: Roles, columns: dict[str, Column], found: FirstRows) -> float:
    """Return the largest share of rows with equal features; below 1 %, roughly."""
    features = sorted((columns[name] for name in roles.features), key=lambda one: one.most)
    values = [_codes(found.columns[one.name]) for one in features]
    if roles.timestamp is not None:
        times = found.columns[roles.timestamp]
        values += [_codes(getattr(pc, part)(times)) for part in roles.time_parts]
    groups = np.zeros(found.count, dtype=np.int64)
    largest = 1.0
    for codes in values:
        groups = np.unique(groups * (codes.max() + 1) + codes, return_inverse=True)[1]
        largest = float(np.bincount(groups).max()) / found.count
        if largest <= _ALIKE:
            break
    return largest


def _codes(values: pa.Array) -> np.ndarray:
    """Return a number for each different value; missing ones are alike."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    elif is_numeric(values.type):
        values = values.cast(pa.float64(), safe=False)
    encoded = values.dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices).astype(np.int64)
