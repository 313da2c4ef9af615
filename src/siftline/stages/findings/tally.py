"""Tallies of labelled rows: anomalies by position, and known labels by score; merging them is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siftline.stages.threshold import ordered_bits
from siftline.types import Float64s, Ints

POSITIONS = 200
_COARSE = np.uint64(36)

Labels = npt.NDArray[np.int8]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class LabelCounts:
    """Rows with a known label, by class and score.

    Attributes
    ----------
    keys : ndarray
        Ascending as the scores do; equal for scores that are not told apart.
    positives, negatives : ndarray
        Rows with that key.
    flagged, flagged_positives : int
        Rows at the threshold or above.
    """

    keys: Keys
    positives: Ints
    negatives: Ints
    flagged: int
    flagged_positives: int

    def plus(self, other: LabelCounts) -> LabelCounts:
        """Return the counts of both."""
        keys, where = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        return LabelCounts(
            keys,
            _sums(where, np.concatenate([self.positives, other.positives]), len(keys)),
            _sums(where, np.concatenate([self.negatives, other.negatives]), len(keys)),
            self.flagged + other.flagged,
            self.flagged_positives + other.flagged_positives,
        )


@dataclass(frozen=True)
class Tally:
    """Anomalies in equal runs of source rows, and counts of known labels, or the problem with these."""

    positions: Ints
    labels: LabelCounts | None = None
    problem: str | None = None

    def plus(self, other: Tally) -> Tally:
        """Return the tally of both."""
        problem = self.problem or other.problem
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = self.labels.plus(other.labels)
        return Tally(self.positions + other.positions, labels, problem)


def count_positions(flagged: Ints, rows: int) -> Ints:
    """Count flagged rows, by their position in a source of `rows` rows, in equal runs."""
    runs = min(POSITIONS, rows)
    return np.bincount(flagged * runs // rows, minlength=runs)


def count_labels(scores: Float64s, labels: Labels, threshold: float, exact_from: float) -> LabelCounts:
    """Count rows by class and score, all of shape (n,); rows without a score or a label (-1) are left out.

    Scores from `exact_from` upwards are all told apart, because the first ranks weigh most; lower ones to a
    share of 1.5e-5.
    """
    known = np.isfinite(scores) & (labels >= 0)
    scores, positive = scores[known], labels[known] == 1
    bits = ordered_bits(scores)
    fine = np.where(scores >= exact_from, bits, bits >> _COARSE << _COARSE)
    keys, where = np.unique(fine, return_inverse=True)
    positives = np.bincount(where[positive], minlength=len(keys))
    flagged = scores >= threshold
    return LabelCounts(
        keys,
        positives,
        np.bincount(where, minlength=len(keys)) - positives,
        int(flagged.sum()),
        int(positive[flagged].sum()),
    )


def _sums(where: Ints, amounts: Ints, length: int) -> Ints:
    return np.bincount(where, weights=amounts, minlength=length).astype(np.int64)
