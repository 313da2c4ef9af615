"""Small multiples: everything lies on the axis, in its order."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from siftline.jobs.findings import FeatureFindings, Findings
from siftline.report.strips import number_of, strip, strips_of
from tests.unit.report.samples import feature, group

VALUES = st.floats(-1e12, 1e12)


@given(st.lists(VALUES, min_size=7, max_size=7).map(sorted), VALUES, VALUES)
def test_ranges_and_values_lie_on_the_axis(quantiles: list[float], median: float, worst: float) -> None:
    made = strip(
        FeatureFindings(name="x", kind="numeric", quantiles=tuple(quantiles)),
        {"median": median, "worst": worst},
    )
    assert made is not None
    places = [made.most.start, made.half.start, made.middle, *made.marks.values()]
    assert all(0 <= place <= 100 for place in places)
    assert made.most.start <= made.half.start <= made.middle
    assert (made.marks["median"] < made.marks["worst"]) <= (median < worst)


def test_values_without_a_place_have_no_strip() -> None:
    assert strip(feature("color", "categorical")) is None
    assert strip(feature(), {"worst": math.inf}) is None


def test_the_reasons_of_a_group_come_before_other_features() -> None:
    findings = Findings(publication="p", features=(feature("a"), feature("color", "text"), feature("x")))
    found = strips_of(group("x").model_copy(update={"worst": {"a": "1", "x": "9"}}), findings)
    assert [(one.feature.name, dict(one.values)) for one in found] == [
        ("x", {"median": 6.5, "worst": 9.0}),
        ("a", {"worst": 1.0}),
    ]


def test_a_text_is_a_number_only_if_it_is_finite() -> None:
    assert [number_of(text) for text in ("1,301.5", "-3e2", "nan", "inf", "red", "")] == [
        1301.5,
        -300.0,
        None,
        None,
        None,
        None,
    ]
