"""Other thresholds: the rows that each would flag, from the curve of the findings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from siftline.jobs.findings import EVERY_POINT, Curve
from siftline.types import Float64s, Ints

_SHARES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class WhatIf:
    """Thresholds and the rows that they flag, both of shape (n,); scores ascend.

    `present` is the position of the present threshold. From `whole_from` upwards no score is left out.
    """

    scores: Float64s
    rows: Ints
    present: int
    whole_from: float

    @classmethod
    def of(cls, curve: Curve, threshold: float, flagged: int) -> WhatIf:
        """Take the points of a curve, and the present threshold."""
        points = dict(zip(curve.scores, curve.rows, strict=True)) | {threshold: flagged}
        scores = np.array(sorted(points))
        rows = np.array([points[score] for score in scores.tolist()], dtype=np.int64)
        whole_from = math.inf if curve.exact_from is None else curve.exact_from
        if curve.thinned:
            whole_from = max(whole_from, curve.scores[:EVERY_POINT][-1])
        return cls(scores, rows, int(np.searchsorted(scores, threshold)), whole_from)

    def steps(self, total: int) -> list[int]:
        """Return the positions of a few thresholds that flag common shares of all rows, and the present."""
        allowed = [share * total for share in _SHARES]
        # Rows descend as scores ascend: the lowest threshold that flags no more than the share.
        found = len(self.rows) - np.searchsorted(self.rows[::-1], allowed, side="right")
        now = self.rows[self.present]
        apart = (
            one for one in found.tolist() if one < len(self.rows) and abs(self.rows[one] - now) > now / 20
        )
        return sorted({self.present, *apart}, reverse=True)

    def between(self, edges: Float64s) -> tuple[Float64s, Ints]:
        """Return edges and the rows between them; the last has no end.

        Edges are moved to points of the curve where nothing is known between these.
        """
        whole = edges >= self.whole_from
        near = np.searchsorted(self.scores, edges[~whole], side="right") - 1
        edges = np.union1d(self.scores[[0, *near[near >= 0]]], edges[whole])
        above = np.append(self.rows, 0)[np.searchsorted(self.scores, edges)]
        return edges, -np.diff(np.append(above, 0))
