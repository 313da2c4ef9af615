"""The curve of thresholds: what it says of any score is true, and exact where it says so."""

from __future__ import annotations

import bisect
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from siftline.jobs.findings import EVERY_POINT, Curve, Quality

scores = st.lists(st.integers(0, 30).map(lambda step: step / 30), min_size=1, max_size=60)


def reaching(values: list[float], score: float) -> int:
    return sum(value >= score for value in values)


@st.composite
def curves(draw: st.DrawFn) -> tuple[list[float], Curve]:
    """Some scores, and a curve that has all points from somewhere upwards, and some below."""
    values = draw(scores)
    exact_from = draw(st.sampled_from(values))
    every = sorted({*values}, reverse=True)
    points = [one for one in every if one >= exact_from or draw(st.booleans())]
    points = sorted({*points, min(values)}, reverse=True)
    rows = tuple(reaching(values, one) for one in points)
    return values, Curve(scores=tuple(points), rows=rows, exact_from=exact_from)


@given(curves(), st.floats(-0.1, 1.1))
def test_the_flagged_rows_lie_between_the_bounds_and_are_exact_from_the_floor(
    found: tuple[list[float], Curve], score: float
) -> None:
    values, curve = found
    low, high = curve.flagged(score)
    assert low <= reaching(values, score) <= high
    assert curve.exact_from is not None
    if score >= curve.exact_from or score in curve.scores:
        assert low == high


@given(curves(), st.data())
def test_the_score_of_a_rank_lies_between_the_bounds(
    found: tuple[list[float], Curve], data: st.DataObject
) -> None:
    values, curve = found
    rank = data.draw(st.integers(1, len(values)))
    low, high = curve.reached(rank)
    score = sorted(values, reverse=True)[rank - 1]
    assert low <= score <= high
    if curve.exact_from is not None and score >= curve.exact_from:
        assert low == high == score


def test_between_points_of_a_thinned_curve_the_rows_are_not_known() -> None:
    points = tuple(1 - number / 1_000 for number in range(EVERY_POINT + 1))
    rows = (*range(1, EVERY_POINT + 1), 600)
    curve = Curve(scores=points, rows=rows, exact_from=0.0, thinned=True)
    assert curve.flagged((points[3] + points[4]) / 2) == (4, 4)
    assert curve.flagged((points[-2] + points[-1]) / 2) == (EVERY_POINT, 600)
    assert curve.reached(550) == (points[-1], points[-2])
    assert bisect.bisect(rows, 550) == EVERY_POINT


def test_a_quality_says_what_is_unknown() -> None:
    known: dict[str, Any] = {"labelled": 1_000, "positives": 20, "roc_auc": 0.98765, "average_precision": 0.5}
    assert str(Quality(**known, precision=0.25, recall=0.125)) == (
        "Against 1,000 known labels, 20 of them anomalies: ROC AUC 0.988, average precision 0.500; "
        "at the threshold precision 0.250, recall 0.125."
    )
    assert "precision unknown, recall 0.125." in str(Quality(**known, precision=None, recall=0.125))
