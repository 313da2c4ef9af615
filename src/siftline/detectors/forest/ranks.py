"""Tables for the rank of a value among thresholds; see `siftline.detectors.forest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from siftline.types import Float32s, Ints

BUCKETS = 4096


class RankTables(NamedTuple):
    """For every feature an even grid of buckets over its thresholds, and the thresholds themselves.

    The rank of a value is the number of thresholds below it: that of its bucket, plus the result of a binary
    search. This is exact because a larger value never has a lower bucket, and because the kernel computes
    buckets by the same float32 operations.
    """

    lows: Float32s  # of shape (features,), as scales: the grids
    scales: Float32s
    firsts: npt.NDArray[np.int32]  # of shape (features, BUCKETS): number of thresholds in lower buckets
    steps: Ints  # of shape (features,): steps of the binary search, enough for the fullest bucket
    offsets: Ints  # of shape (features + 1,): position of each feature's first threshold
    thresholds: Float32s  # ascending for each feature, padded with infinities for the search


def rank_tables(thresholds: Sequence[Float32s]) -> RankTables:
    """Make the tables for the ascending thresholds of every feature."""
    grids = [_grid(known) for known in thresholds]
    counts = [
        np.bincount(buckets(known, *grid), minlength=BUCKETS)
        for known, grid in zip(thresholds, grids, strict=True)
    ]
    steps = [int(count.max()).bit_length() for count in counts]
    padded = [
        np.append(known, np.full(1 << step, np.inf, dtype=np.float32))
        for known, step in zip(thresholds, steps, strict=True)
    ]
    lows, scales = zip(*grids, strict=True)
    return RankTables(
        lows=np.array(lows),
        scales=np.array(scales),
        firsts=np.array([np.cumsum(count) - count for count in counts], dtype=np.int32),
        steps=np.array(steps),
        offsets=np.cumsum([0, *map(len, padded)]),
        thresholds=np.concatenate(padded),
    )


def _grid(thresholds: Float32s) -> tuple[np.float32, np.float32]:
    """Return the low end and the scale; a scale of 0 means no grid, so that all are searched."""
    if not len(thresholds):
        return np.float32(0), np.float32(0)
    with np.errstate(over="ignore", divide="ignore"):
        width = thresholds[-1] - thresholds[0]
        scale = np.float32(BUCKETS - 1) / width
    return thresholds[0], scale if np.isfinite(width) and np.isfinite(scale) else np.float32(0)


def buckets(values: Float32s, low: np.float32, scale: np.float32) -> Ints:
    """Return the bucket of each value."""
    if not scale:  # the difference may be infinite
        return np.zeros(len(values), dtype=np.int64)
    with np.errstate(over="ignore"):
        position: Float32s = (values - low) * scale
    return position.clip(np.float32(0), np.float32(BUCKETS - 1)).astype(np.int64)
