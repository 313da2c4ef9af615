"""Other thresholds: no number of rows is anything but exact."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from siftline.report.what_if import WhatIf
from tests.unit.report.samples import curve_of

SCORES = st.lists(st.floats(-100, 100), min_size=1, max_size=200).map(np.array)


@given(SCORES, st.floats(0, 1))
def test_every_threshold_flags_the_rows_that_it_says(scores: np.ndarray, part: float) -> None:
    threshold = float(np.quantile(scores, part))
    flagged = int((scores >= threshold).sum())

    what_if = WhatIf.of(curve_of(scores), threshold, flagged)

    assert what_if.rows.tolist() == [int((scores >= score).sum()) for score in what_if.scores]
    assert what_if.scores[what_if.present] == threshold


@given(SCORES, st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_the_bars_hold_every_row_once(scores: np.ndarray, edges: list[float]) -> None:
    what_if = WhatIf.of(curve_of(scores), float(scores.max()), int((scores == scores.max()).sum()))
    _, rows = what_if.between(np.sort(edges))
    assert rows.sum() == len(scores)
    assert (rows >= 0).all()


@given(SCORES)
def test_the_steps_are_a_few_different_thresholds_and_the_present_one(scores: np.ndarray) -> None:
    what_if = WhatIf.of(curve_of(scores), float(scores.max()), 1)
    steps = what_if.steps(len(scores))
    assert what_if.present in steps
    assert steps == sorted(set(steps), reverse=True)
    assert len(steps) <= 13


@given(st.lists(st.floats(0, 99_999), min_size=1, max_size=20))
def test_bars_end_only_where_the_rows_are_known(edges: list[float]) -> None:
    scores = np.arange(100_000, dtype=float)
    curve = curve_of(scores, every=100, thinned=True)

    found, rows = WhatIf.of(curve, 99_999.0, 1).between(np.sort(edges))

    assert rows.tolist() == np.histogram(scores, np.append(found, np.inf))[0].tolist()
