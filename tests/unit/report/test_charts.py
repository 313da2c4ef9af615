"""Charts: the same data gives the same picture, in the colours of the page."""

from __future__ import annotations

import re
from datetime import timedelta

import matplotlib
import numpy as np
import pytest

from siftline.jobs.findings import Findings
from siftline.jobs.live import Sample
from siftline.report.charts import occurrences, past, throughput
from siftline.report.drawing import drawing
from siftline.report.scores import distribution
from siftline.report.what_if import WhatIf
from tests.unit.report.samples import START, curve_of, history_of


def scores(count: int = 5000) -> np.ndarray:
    return np.random.default_rng(0).gamma(3, 0.1, count)


def draw_all() -> list[str]:
    values = scores()
    what_if = WhatIf.of(curve_of(values), float(np.sort(values)[-50]), 50)
    days = [(START + timedelta(days=day)).isoformat() for day in range(30)]
    timed = Findings(publication="p", times=tuple((day, 2) for day in days))
    moments = [START + timedelta(seconds=second) for second in range(9)]
    timeline = [
        Sample(at=at, rows=10 * n, chunks=n, retries=n // 4, workers=2, memory=n)
        for n, at in enumerate(moments)
    ]
    with drawing():
        charts = [
            distribution(what_if, len(values)).svg,
            occurrences(timed, 100),
            throughput(timeline),
            *past(history_of()),
        ]
    return [str(chart) for chart in charts]


def test_the_same_data_gives_the_same_bytes_whatever_matplotlibs_settings() -> None:
    drawn = draw_all()
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert draw_all() == drawn


def test_charts_on_one_page_share_no_id() -> None:
    found = [re.findall(r' id="([^"]+)"', chart) for chart in draw_all()]
    ids = [name for chart in found for name in chart]
    assert len(ids) == len(set(ids))
    assert {"flagged", "threshold"} <= set(found[0])


@pytest.mark.parametrize("chart", range(7))
def test_a_chart_has_a_text_alternative_and_only_the_pages_colours(chart: int) -> None:
    svg = draw_all()[chart]
    assert re.match(r'<svg class="chart" viewBox="[\d. ]+" role="img" aria-label="[^"]{30,}"', svg)
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", svg)) <= {"#ffffff"}
    assert "<style" not in svg
    assert "font-family" not in svg


def test_the_place_of_a_higher_threshold_is_further_right() -> None:
    values = scores()
    what_if = WhatIf.of(curve_of(values), float(values.max()), 1)
    with drawing():
        places = distribution(what_if, len(values)).places
    assert len(places) == len(what_if.scores)
    assert places == sorted(places)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [-3.0, 0.0, 1e-9], [1e-300, 1e300], [-1e300, 1e300]])
def test_few_equal_or_far_apart_scores_are_drawn(values: list[float]) -> None:
    what_if = WhatIf.of(curve_of(np.array(values)), max(values), 1)
    with drawing():
        assert "flagged" in distribution(what_if, len(values)).svg


def test_without_enough_to_show_there_is_no_chart() -> None:
    with drawing():
        assert occurrences(Findings(publication="p"), 10) is None
        assert throughput([]) is None
        assert past(history_of(1)) == []


def test_measures_that_older_records_lack_are_left_out() -> None:
    older = [one.model_copy(update={"threshold": None, "duration_seconds": None}) for one in history_of()]
    with drawing():
        assert len(past(older)) == 2
