"""Columns in numbers: quantiles of features, and shares of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.batch_plan import Feature
from siftline.jobs.texts import value_of
from siftline.types import Float64s

# Longer texts are compared by their beginning, because they cross the network.
_LONGEST = 200


def numbers(table: pa.Table, feature: Feature) -> Float64s:
    """Return a feature that is not text as float64 of shape (n,); NaN where it is missing or infinite."""
    column = table[feature.column]
    if feature.time_part is not None:
        column = getattr(pc, feature.time_part)(column)
    values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return np.where(np.isfinite(values), values, np.nan)


def quantiles(values: Float64s, shares: Sequence[float]) -> tuple[float, ...]:
    """Return quantiles of the values that are present; none if there are none."""
    present = values[~np.isnan(values)]
    return tuple(np.quantile(present, shares).tolist()) if len(present) else ()


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a column as short texts."""
    try:
        return pc.utf8_slice_codeunits(column.cast(pa.string()), 0, _LONGEST)
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        values = [value_of(one) for one in column]
        return pa.chunked_array([pa.array([one and one[:_LONGEST] for one in values], pa.string())])


def most_frequent(values: pa.ChunkedArray, most: int) -> list[tuple[str, int]]:
    """Return the most frequent texts with their counts; of equal counts, in alphabetical order."""
    counted = pc.value_counts(values.drop_null())
    table = pa.table({"text": counted.field("values"), "count": counted.field("counts")})
    order = pc.select_k_unstable(table, most, [("count", "descending"), ("text", "ascending")])
    top = table.take(order)
    return list(zip([value_of(one) for one in top["text"]], top["count"].to_pylist(), strict=True))
