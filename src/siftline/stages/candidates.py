"""Candidates: rows of a chunk that are likely anomalies, kept while they are in memory.

The threshold is known only when all chunks are scored; fetching the anomalies from the source then would
decode it all again. So every chunk keeps the rows with its highest scores, several times its share of the
anomalies. The source is read again only if that was too few, because anomalies cluster, or if candidates
would be a large part of the chunk.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.source.reading import joined
from siftline.types import Float64s

_TIMES_SHARE = 4
_MIN_SHARE = 0.01
_MOST = 0.25


class Candidates:
    """The rows with the highest scores of a chunk of `rows` rows, collected batch by batch.

    `share` is the expected share of flagged rows. With a known `threshold` the candidates are the anomalies.
    All rows that score `floor` or more are candidates: -inf keeps all, inf none, because they are too many.
    """

    def __init__(self, rows: int, share: float, threshold: float | None) -> None:
        self._most = math.ceil(_MOST * rows)
        self._keep: int | None = None
        if threshold is None:
            self._keep = math.ceil(max(_TIMES_SHARE * share, _MIN_SHARE) * rows)
            threshold = -math.inf if self._keep <= self._most else math.inf
        self.floor = threshold
        self._highest: Float64s = np.empty(0)
        self._tables: list[pa.Table] = []
        self._held = 0

    def add(self, table: pa.Table, scores: Float64s) -> None:
        """Add the candidates of a batch; its scores, of shape (n,), may be NaN."""
        if self.floor == math.inf:
            return
        if self._keep is not None:
            self._raise_floor(scores, self._keep)
        positions = np.flatnonzero(scores >= self.floor)
        self._tables.append(
            table.take(pa.array(positions)).append_column("score", pa.array(scores[positions]))
        )
        self._held += len(positions)
        if self._keep is None and self._held > self._most:
            self.floor, self._tables = math.inf, []
        if self._keep is not None and self._held > 2 * self._keep:
            self._tables = [self._above_floor()]
            self._held = self._tables[0].num_rows

    def rows(self) -> pa.Table | None:
        """Return the candidates in source order with a column ``score``, or None if too many."""
        return None if self.floor == math.inf else self._above_floor()

    def _above_floor(self) -> pa.Table:
        rows = joined(self._tables)
        return rows.filter(pc.greater_equal(rows["score"], self.floor))

    def _raise_floor(self, scores: Float64s, keep: int) -> None:
        highest = np.concatenate([self._highest, scores[scores >= self.floor]])
        if len(highest) > keep:
            highest = np.partition(highest, -keep)[-keep:]
            self.floor = float(highest.min())
        self._highest = highest
