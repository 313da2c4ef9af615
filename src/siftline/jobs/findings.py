"""Findings of a result: groups of anomalies, the curve of thresholds, features, and known labels."""

from __future__ import annotations

import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from pathlib import Path

from siftline.storage.layout import OutputFiles, Version
from siftline.storage.records import Record, RecordFile

# Points of a curve, from the highest score, that are never left out.
EVERY_POINT = 500


class FeatureFindings(Record):
    """A feature in a seeded sample of the source, and among the anomalies.

    Attributes
    ----------
    quantiles : tuple of float
        Minimum, 5 %, 25 %, 50 %, 75 %, 95 % and maximum in the sample; empty for text.
    values : tuple of (str, float)
        Most frequent values in the sample and their shares, for text.
    missing : float
        Share of missing values in the sample.
    anomalies : tuple of float
        25 %, 50 % and 75 % among the anomalies; empty for text.
    reasons : int
        Anomalies with the feature among their reasons.
    """

    name: str
    kind: str
    quantiles: tuple[float, ...] = ()
    values: tuple[tuple[str, float], ...] = ()
    missing: float = 0.0
    anomalies: tuple[float, ...] = ()
    reasons: int = 0


class SampleFeatures(Record):
    """Features in `rows` rows of the training sample."""

    rows: int
    features: tuple[FeatureFindings, ...]


class GroupReason(Record):
    """A reason that the rows of a group share; `value` is the median of the group, or its most frequent."""

    feature: str
    direction: str
    value: str
    typical: str
    distance: float | None


class Overrepresented(Record):
    """A value of a carried column: its share of a group, and how many times its share of the sample."""

    column: str
    value: str
    share: float
    lift: float


class Group(Record):
    """Anomalies with the same two strongest reasons and directions.

    `worst` has columns of the row with the highest score as text, `score` its score, `sentence` the group
    in words.
    """

    reasons: tuple[GroupReason, ...]
    rows: int
    share: float
    score: float
    rank: int
    worst: dict[str, str]
    overrepresented: tuple[Overrepresented, ...] = ()
    sentence: str


class Curve(Record):
    """Rows that any threshold would flag: `rows[i]` score `scores[i]` or more, exactly; scores descend.

    From `exact_from` upwards every score of a row is a point, unless `thinned`; below it, points are edges
    of the histogram's buckets. `quantiles` are scores at quantiles of all rows, exact to a bucket. The first
    `EVERY_POINT` points are never thinned.
    """

    scores: tuple[float, ...]
    rows: tuple[int, ...]
    exact_from: float | None
    thinned: bool = False
    quantiles: tuple[tuple[float, float], ...] = ()

    def flagged(self, score: float) -> tuple[int, int]:
        """Return the fewest and the most rows that a threshold would flag: the same where that is known."""
        # The points from the score upwards; the last of them flags at least as many rows as the score.
        above = bisect_right(self.scores, -score, key=operator.neg)
        fewest = self.rows[above - 1] if above else 0
        if above == len(self.scores) or (above and self.scores[above - 1] == score):
            return fewest, fewest
        whole = not self.thinned or above < EVERY_POINT
        exact = whole and self.exact_from is not None and score >= self.exact_from
        return fewest, fewest if exact else self.rows[above]

    def reached(self, rows: int) -> tuple[float, float]:
        """Return the lowest and the highest score that the row of this rank, from 1, may have."""
        point = min(bisect_left(self.rows, rows), len(self.rows) - 1)
        low, high = self.scores[point], self.scores[max(0, point - 1)]
        return (low, low) if self.flagged(math.nextafter(low, math.inf))[1] < rows else (low, high)


class Quality(Record):
    """Agreement with known labels: ranking of all labelled rows, and the flagged rows at the threshold.

    `roc_auc` and `average_precision` are exact to 1e-4; None without rows of both classes.
    """

    labelled: int
    positives: int
    roc_auc: float | None
    average_precision: float | None
    precision: float | None
    recall: float | None

    def __str__(self) -> str:
        """Return the agreement as a sentence."""
        text = f"Against {self.labelled:,} known labels, {self.positives:,} of them anomalies: "
        ranking = {"ROC AUC": self.roc_auc, "average precision": self.average_precision}
        flagged = {"precision": self.precision, "recall": self.recall}
        return f"{text}{_figures(ranking)}; at the threshold {_figures(flagged)}."


class Findings(Record):
    """Findings of a publication.

    Attributes
    ----------
    groups : tuple of Group
        Largest first; `others` counts the anomalies beyond them.
    positions : tuple of int
        Anomalies in each of equal runs of rows, in source order; for few rows, one each.
    times : tuple of (str, int)
        Anomalies by equal intervals of `timestamp`, if that is carried; the starts in ISO 8601.
    sample_rows : int
        Rows of the seeded sample that features and carried columns are compared with.
    """

    publication: str
    groups: tuple[Group, ...] = ()
    others: int = 0
    curve: Curve | None = None
    features: tuple[FeatureFindings, ...] = ()
    positions: tuple[int, ...] = ()
    times: tuple[tuple[str, int], ...] = ()
    timestamp: str | None = None
    quality: Quality | None = None
    sample_rows: int = 0


def findings_record(publication: Path) -> RecordFile[Findings]:
    """Return the findings in the directory of a publication or an output, as a record on disk."""
    return RecordFile(publication / OutputFiles.FINDINGS, Findings, Version.FINDINGS)


def sample_record(model: Path) -> RecordFile[SampleFeatures]:
    """Return the features in the training sample of a model that the job fitted, as a record on disk."""
    return RecordFile(model.with_suffix(".json"), SampleFeatures, Version.FINDINGS)


def _figures(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {'unknown' if one is None else f'{one:.3f}'}" for name, one in figures.items())
