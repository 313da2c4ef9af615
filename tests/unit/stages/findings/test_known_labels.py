"""Known labels: which values are labels, and figures that agree with scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from siftline.errors import SourceError
from siftline.stages.findings.known_labels import as_labels
from siftline.stages.findings.quality import quality_of
from siftline.stages.findings.tally import count_labels
from siftline.stages.threshold import lowest_edge, merge, summarise


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pa.array([True, False, None]), [1, 0, -1]),
        (pa.array([0, 1, None], pa.int8()), [0, 1, -1]),
        (pa.array([0.0, 1.0, math.nan, None]), [0, 1, -1, -1]),
        (pa.array(["0", "1", "", None]), [0, 1, -1, -1]),
        (pa.array(["Normal", " anomaly ", "outlier", "inlier"]), [0, 1, 1, 0]),
        (pa.array(["yes", "NO", "yes"]).dictionary_encode(), [1, 0, 1]),
        (pa.array(["true", "False"], pa.large_string()), [1, 0]),
        (pa.array([None, None], pa.string()), [-1, -1]),
    ],
)
def test_labels_are_numbers_truth_values_or_words(values: pa.Array, labels: list[int]) -> None:
    assert as_labels(values, "y").tolist() == labels


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([0, 2]), "it has the value '2.0'"),
        (pa.array([-1, 1]), "it has the value '-1.0'"),
        (pa.array(["normal", "maybe\x1b"]), "it has the value 'maybe�'"),
        (pa.array([[1]]), "it is a list<item: int64>"),
    ],
)
def test_a_value_that_is_no_label_is_an_error(values: pa.Array, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        as_labels(values, "y")
    assert caught.value.problem == f"source.label y: {problem}"


def counted(scores: np.ndarray, labels: np.ndarray, cuts: list[int], threshold: float, exact: int) -> object:
    """The quality of rows that are counted in chunks."""
    chunks = list(zip(np.split(scores, cuts), np.split(labels, cuts), strict=True))
    exact_from = lowest_edge(merge(summarise(chunk) for chunk, _ in chunks), exact)
    counts = [count_labels(*chunk, threshold, exact_from) for chunk in chunks]
    total = counts[0]
    for one in counts[1:]:
        total = total.plus(one)
    return quality_of(total)


@given(data=st.data(), rows=st.integers(1, 60), exact=st.sampled_from([0, 10, 1 << 17]))
def test_any_chunking_gives_the_figures_of_scikit_learn(data: st.DataObject, rows: int, exact: int) -> None:
    step = st.integers(1, 12).map(
        lambda value: value / 8
    )  # with ties, and further apart than the finest step
    scores = np.array(data.draw(st.lists(step, min_size=rows, max_size=rows)))
    labels = np.array(data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=rows, max_size=rows)), np.int8)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=3)))
    quality = counted(scores, labels, cuts, 1.0, exact)
    known, flagged = labels >= 0, scores >= 1.0
    assert (quality.labelled, quality.positives) == (known.sum(), (labels == 1).sum())
    if {0, 1} <= {*labels.tolist()}:
        assert quality.roc_auc == pytest.approx(roc_auc_score(labels[known], scores[known]))
        assert quality.average_precision == pytest.approx(
            average_precision_score(labels[known], scores[known])
        )
        if (flagged & known).any():
            assert quality.precision == (labels[flagged & known] == 1).mean()
        assert quality.recall == flagged[labels == 1].mean()
    else:
        assert quality.roc_auc is quality.average_precision is None


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.3])
def test_a_million_continuous_scores_are_ranked_to_within_a_ten_thousandth(share: float) -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(1_000_000) < share).astype(np.int8)
    scores = 0.4 + 0.1 * generator.beta(2, 5, len(labels)) + 0.15 * labels * generator.random(len(labels))
    quality = counted(scores, labels, [300_000, 300_001], float(np.quantile(scores, 0.99)), 1 << 17)
    assert quality.roc_auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    assert quality.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-4)


def test_rows_without_a_score_or_a_label_are_left_out() -> None:
    scores, labels = np.array([0.9, np.nan, 0.2, 0.1]), np.array([1, 1, -1, 0], np.int8)
    quality = counted(scores, labels, [], 0.5, 10)
    assert (quality.labelled, quality.positives, quality.roc_auc) == (2, 1, 1.0)
    assert (quality.precision, quality.recall) == (1.0, 1.0)
