"""The threshold is exact: merging is a commutative monoid, and selecting agrees with sorting."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siftline.stages.threshold import (
    Scan,
    count_from,
    flagged_count,
    kth_largest,
    may_reach,
    merge,
    ordered_bits,
    summarise,
)
from siftline.types import ScoreSummary

TINY = 5e-324
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
edges = st.sampled_from([0.0, -0.0, TINY, -TINY, 2.2250738585072014e-308, 1.5, -1.5, 1.7976931348623157e308])
# Scores of a forest: many ties, close to one another.
close = st.integers(0, 6).map(lambda step: 0.5 + step * 2**-50)
any_score = st.one_of(finite, edges, close)
scores_of_chunks = st.lists(
    st.lists(st.one_of(any_score, st.just(math.nan), st.just(math.inf)), max_size=20), max_size=6
)


def as_array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def scan_of(arrays: list[np.ndarray]) -> Scan:
    """Nothing but what is asked for."""
    return lambda lowest: [array[array >= lowest] for array in arrays]


summaries = st.lists(any_score, max_size=20).map(lambda values: summarise(as_array(values)))


@given(summaries, summaries, summaries)
def test_merging_is_associative(one: ScoreSummary, two: ScoreSummary, three: ScoreSummary) -> None:
    flat = merge([one, two, three])
    assert merge([merge([one, two]), three]) == flat
    assert merge([one, merge([two, three])]) == flat


@given(summaries, summaries)
def test_merging_is_commutative(one: ScoreSummary, two: ScoreSummary) -> None:
    assert merge([one, two]) == merge([two, one])


@given(summaries)
def test_the_empty_summary_is_neutral(one: ScoreSummary) -> None:
    assert merge([one, ScoreSummary()]) == merge([ScoreSummary(), one]) == merge([one]) == one
    assert merge([]) == ScoreSummary()


@given(scores_of_chunks)
def test_merged_summaries_are_the_summary_of_all_scores(chunks: list[list[float]]) -> None:
    together = as_array([score for chunk in chunks for score in chunk])
    assert merge(summarise(as_array(chunk)) for chunk in chunks) == summarise(together)


@given(st.lists(any_score, min_size=2, max_size=30))
def test_ordered_bits_order_like_the_floats(values: list[float]) -> None:
    scores = as_array(values)
    bits = ordered_bits(scores)
    assert ((bits[:, None] < bits) == (scores[:, None] < scores)).all()
    assert ((bits[:, None] == bits) == (scores[:, None] == scores)).all()


@pytest.mark.parametrize("hold", [0, 1, 3, 1 << 21])
@given(data=st.data(), chunks=st.lists(st.lists(any_score, min_size=1, max_size=12), min_size=1, max_size=6))
def test_the_kth_largest_is_the_sorted_ones(
    hold: int, data: st.DataObject, chunks: list[list[float]]
) -> None:
    together = np.sort(as_array([score for chunk in chunks for score in chunk]))
    k = data.draw(st.integers(1, len(together)), label="k")
    arrays = [as_array(chunk) for chunk in chunks]
    found = kth_largest(k, merge(summarise(array) for array in arrays), scan_of(arrays), hold)
    assert found == together[-k]


@pytest.mark.parametrize("hold", [0, 1 << 21])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0, 0.0],
        [TINY, -TINY, 0.0, 2 * TINY],
        [-3.0, -2.0, -2.0, -1.0],
        [0.5] * 7,
        [0.5, math.nextafter(0.5, 1), math.nextafter(0.5, 0)],
    ],
    ids=["zeros", "denormals", "negatives", "all ties", "neighbours"],
)
def test_every_kth_largest_of_awkward_scores(values: list[float], hold: int) -> None:
    scores = as_array(values)
    found = [kth_largest(k, summarise(scores), scan_of([scores]), hold) for k in range(1, len(values) + 1)]
    assert found == sorted(values, reverse=True)


def test_scores_that_are_not_finite_are_passed_over() -> None:
    scores = as_array([math.nan, 1.0, math.inf, 2.0, -math.inf])
    assert kth_largest(1, summarise(scores), scan_of([scores])) == 2.0
    assert summarise(scores).non_finite == 3


def test_more_than_there_are_cannot_be_asked_for() -> None:
    scores = as_array([1.0, 2.0])
    with pytest.raises(ValueError, match="at most the number of scores, 2"):
        kth_largest(3, summarise(scores), scan_of([scores]))


def test_few_scores_in_the_bucket_are_scanned_once() -> None:
    scores = np.random.default_rng(0).random(1000)
    scans: list[float] = []

    def scan(lowest: float) -> list[np.ndarray]:
        scans.append(lowest)
        return [scores]

    kth_largest(10, summarise(scores), scan, hold=1000)
    assert len(scans) == 1
    scans.clear()
    kth_largest(10, summarise(scores), scan, hold=0)
    assert len(scans) == 3


@given(st.floats(min_value=1e-9, max_value=0.5), st.integers(0, 10**12))
@example(0.07, 100)
@example(0.1, 30)
@example(0.5, 1)
def test_the_flagged_count_is_the_exact_decimal_one(share: float, rows: int) -> None:
    exact = Fraction(Decimal(repr(share))) * rows
    assert exact <= flagged_count(share, rows) < exact + 1


def test_a_share_counts_as_it_is_written() -> None:
    assert flagged_count(0.07, 100) == 7
    assert flagged_count(0.001, 1000) == 1
    assert flagged_count(0.001, 1001) == 2
    assert flagged_count(1e-9, 1) == 1


@given(st.lists(any_score, max_size=30), any_score)
def test_the_count_from_a_threshold_is_never_underestimated(values: list[float], limit: float) -> None:
    scores = as_array(values)
    summary = summarise(scores)
    reaching = int((scores >= limit).sum())
    assert reaching <= count_from(summary, limit) <= len(values)
    assert may_reach(summary, limit) == (reaching > 0)
