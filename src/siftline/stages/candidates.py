"""Candidates: the rows of a chunk that may turn out to be anomalies, kept while they are at hand.

The threshold is known only when all chunks are scored; then the anomalies are wanted as they are in the
source, and to find some rows in it means to decode it all again. So every chunk keeps the rows of its highest
scores, several times as many as its share of the anomalies. Where that turns out not to be enough, because
anomalies crowd together, the source is read after all; so it is where candidates would be a large part of the
chunk.
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
    """The rows of the highest scores of a chunk, batch by batch.

    Parameters
    ----------
    rows : int
        Rows of the chunk.
    share : float
        Share of all rows that will be flagged.
    threshold : float or None
        The threshold, where it is known already: then the candidates are the anomalies.

    Attributes
    ----------
    floor : float
        All rows that score so much or more are candidates: -inf as long as all rows are, inf once there are
        none because they would be too many.
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
        """Take from a batch what may be among the highest; the scores, of shape (n,), may be NaN."""
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
        """Return the candidates, in source order, with their scores as column ``score``, if there are any."""
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
