"""Findings of a result: groups of anomalies, the curve of thresholds, features, and known labels."""

from __future__ import annotations

from pathlib import Path

from siftline.storage.layout import OutputFiles, Version
from siftline.storage.records import Record, RecordFile


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

    `worst` has the columns of the highest scored row as text, `score` its score, `sentence` the group in words.
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
    of the histogram's buckets. `quantiles` are scores at quantiles of all rows, exact to a bucket.
    """

    scores: tuple[float, ...]
    rows: tuple[int, ...]
    exact_from: float | None
    thinned: bool = False
    quantiles: tuple[tuple[float, float], ...] = ()


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
        Rows of the sample that features and carried columns are compared with.
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
