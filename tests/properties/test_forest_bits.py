"""Compiled forests score as scikit-learn does, to the bit: any forest, any values, any memory layout."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from siftline.detectors.forest.scorer import CompiledForest

ROWS = 400
FEATURES = 5
TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)

# What the forests are fitted on, and how.
SOURCES = {
    "normal": lambda g: g.normal(size=(ROWS, FEATURES)),
    "few values": lambda g: g.integers(0, 4, (ROWS, FEATURES)).astype(float),
    "constant": lambda g: np.ones((ROWS, FEATURES)),
    "long tails": lambda g: g.pareto(0.3, (ROWS, FEATURES)).clip(0, 1e30),
    "many scales": lambda g: g.normal(size=(ROWS, FEATURES)) * 10.0 ** np.array([-30, -6, 0, 6, 30]),
    "denormal": lambda g: g.normal(size=(ROWS, FEATURES)) * 1e-42,
    "huge": lambda g: (g.normal(size=(ROWS, FEATURES)) * 2e38).clip(-HUGE, HUGE),
    "missing": lambda g: np.where(g.random((ROWS, FEATURES)) < 0.2, np.nan, g.normal(size=(ROWS, FEATURES))),
}
PARAMS: list[dict[str, Any]] = [
    {"n_estimators": 20},
    {"n_estimators": 7, "max_features": 0.5},
    {"n_estimators": 9, "max_samples": ROWS, "bootstrap": True},
    {"n_estimators": 5, "max_samples": 20, "max_features": 1},
    {"n_estimators": 3, "max_samples": 1},
    {"n_estimators": 16, "max_samples": 2},
]


@cache
def fitted(source: str, number: int) -> IsolationForest:
    with np.errstate(over="ignore"):
        sample = SOURCES[source](np.random.default_rng(3)).astype(np.float32)
    return IsolationForest(random_state=1, **PARAMS[number]).fit(sample)


@cache
def thresholds(source: str, number: int) -> list[np.ndarray]:
    found: list[list[float]] = [[0.0] for _ in range(FEATURES)]
    forest = fitted(source, number)
    for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            if feature >= 0:
                found[features[feature]].append(threshold)
    return [np.array(each) for each in found]


def rows_about(found: list[np.ndarray], seed: int, missing: bool) -> np.ndarray:
    """Rows of thresholds, what comes before and after them as float32 and as float64, and strange values."""
    generator = np.random.default_rng(seed)
    rows = np.column_stack([generator.choice(each, 60) for each in found])
    kind = generator.integers(0, 9, rows.shape)
    single = rows.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        for number, towards in ((1, np.inf), (2, -np.inf)):
            rows = np.where(kind == number, np.nextafter(single, np.float32(towards)), rows)
            rows = np.where(kind == number + 2, np.nextafter(rows, towards), rows)
    strange = generator.choice([0.0, -0.0, TINY, -TINY, HUGE, -HUGE, 1e-40, 1.0], rows.shape)
    rows = np.where(kind == 5, strange, rows)
    if missing:
        rows = np.where(generator.random(rows.shape) < 0.1, np.nan, rows)
    return rows.clip(-HUGE, HUGE)


@settings(max_examples=150)
@given(
    source=st.sampled_from(sorted(SOURCES)),
    number=st.integers(0, len(PARAMS) - 1),
    seed=st.integers(0, 2**32 - 1),
    missing=st.booleans(),
    layout=st.sampled_from(["C", "F", "float64", "every other row", "every other column", "read only"]),
)
def test_no_bit_differs_whatever_the_forest_the_values_and_the_memory_layout(
    kernels: Any, source: str, number: int, seed: int, missing: bool, layout: str
) -> None:
    forest = fitted(source, number)
    rows = rows_about(thresholds(source, number), seed, missing)
    single = rows.astype(np.float32)
    matrix = {
        "C": single,
        "F": np.asfortranarray(single),
        "float64": rows,
        "every other row": np.repeat(single, 2, axis=0)[::2],
        "every other column": np.repeat(single, 2, axis=1)[:, ::2],
        "read only": single,
    }[layout]
    matrix.setflags(write=layout != "read only")
    scores = CompiledForest(forest, kernels).score_samples(matrix)
    assert scores.tobytes() == forest.score_samples(matrix).tobytes()


@pytest.mark.parametrize("source", sorted(SOURCES))
@pytest.mark.parametrize("rows", [1, 2, 4095, 4096, 4097, 9000])
def test_no_bit_differs_whatever_the_number_of_rows(kernels: Any, source: str, rows: int) -> None:
    forest = fitted(source, 1)
    matrix = np.tile(rows_about(thresholds(source, 1), rows, False).astype(np.float32), (150, 1))[:rows]
    matrix[-1, 0] = np.nan  # in the last block only
    scores = CompiledForest(forest, kernels).score_samples(matrix)
    assert scores.tobytes() == forest.score_samples(matrix).tobytes()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_scored_as_scikit_learn_scores_them(kernels: Any, value: float) -> None:
    for source in SOURCES:
        forest = fitted(source, 0)
        matrix = rows_about(thresholds(source, 0), 4, True).astype(np.float32)
        matrix[::3, ::2] = value
        scores = CompiledForest(forest, kernels).score_samples(matrix)
        assert scores.tobytes() == forest.score_samples(matrix).tobytes()


def test_no_bit_differs_with_more_thresholds_than_a_byte_can_rank(kernels: Any) -> None:
    sample = np.random.default_rng(5).normal(size=(3000, 2)).astype(np.float32)
    forest = IsolationForest(n_estimators=30, max_samples=1024, random_state=0).fit(sample)
    assert max(len(np.unique(tree.tree_.threshold)) for tree in forest.estimators_) > 255
    matrix = np.vstack([sample, sample + np.float32(0.01)])
    matrix[::7, 1] = np.nan
    scores = CompiledForest(forest, kernels).score_samples(matrix)
    assert scores.tobytes() == forest.score_samples(matrix).tobytes()


def test_what_lies_at_a_threshold_decides() -> None:
    """Or the tests above would prove little: the neighbours of a threshold get other scores."""
    forest = fitted("normal", 0)
    rows = rows_about(thresholds("normal", 0), 0, False).astype(np.float32)
    with np.errstate(over="ignore"):
        beside = np.nextafter(rows, np.float32(np.inf))
    assert (forest.score_samples(rows) != forest.score_samples(beside)).any()
