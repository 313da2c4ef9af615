"""The curve of thresholds from summaries and the highest scores: every point is exact, few are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.jobs.findings import EVERY_POINT, Curve
from siftline.stages.findings.curve import curve_of
from siftline.stages.threshold import summarise

scores = st.lists(
    st.floats(-1e6, 1e6) | st.integers(0, 9).map(lambda step: 0.5 + step * 2**-40), min_size=1, max_size=60
)


def curve(values: np.ndarray, floor: float, threshold: float) -> Curve:
    return curve_of(summarise(values), np.sort(values[values >= floor]), floor, threshold)


@given(values=scores, data=st.data())
def test_every_point_is_exact_whatever_the_floor(values: list[float], data: st.DataObject) -> None:
    array = np.array(values)
    threshold = data.draw(st.sampled_from(values) | st.floats(-2e6, 2e6))
    floor = data.draw(st.sampled_from([-np.inf, threshold, *(one for one in values if one <= threshold)]))
    found = curve(array, floor, threshold)
    assert list(found.scores) == sorted(set(found.scores), reverse=True)
    assert list(found.rows) == [int((array >= score).sum()) for score in found.scores]
    assert threshold in found.scores
    assert found.exact_from is not None
    assert set(array[array >= found.exact_from]) <= set(found.scores)
    assert not found.thinned
    assert found.rows[-1] == len(values) or threshold < array.min()
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("floor", [0.6, 0.9, 0.999])
def test_a_long_curve_keeps_the_first_points_the_threshold_and_a_few_others(floor: float) -> None:
    values = np.random.default_rng(0).random(200_000)
    ordered = np.sort(values)[::-1]
    threshold = float(max(floor, ordered[1_234]))
    found = curve(values, floor, threshold)
    assert len(found.scores) <= 2_000
    assert found.scores[: min(EVERY_POINT, found.flagged(floor)[0])] == tuple(
        ordered[: min(EVERY_POINT, found.flagged(floor)[0])].tolist()
    )
    assert threshold in found.scores
    assert found.thinned == (floor < 0.99)
    assert list(found.rows) == [int((values >= score).sum()) for score in found.scores]


def test_the_quantiles_are_scores_of_rows_or_the_edges_below_them() -> None:
    values = np.random.default_rng(0).random(10_000)
    found = dict(curve(values, 0.95, 0.99).quantiles)
    ordered = np.sort(values)
    assert found[0.999] == ordered[-10]
    assert found[0.99] == ordered[-100]
    assert found[0.9999] == ordered[-1]
    assert found[0.5] <= ordered[-5_000] < found[0.5] + 1 / 64
    assert {*found.values()} <= {*curve(values, 0.95, 0.99).scores}


def test_a_threshold_above_all_scores_flags_nothing() -> None:
    found = curve(np.array([0.25, 0.5]), 0.75, 0.75)
    assert found.flagged(0.75) == (0, 0)
    assert found.flagged(0.1) == (2, 2)
