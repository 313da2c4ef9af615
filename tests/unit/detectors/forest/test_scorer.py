"""A forest scorer gives scikit-learn's scores, by kernels where possible."""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from siftline.detectors.forest import scorer
from siftline.detectors.forest.compilation import Kernels
from siftline.detectors.forest.scorer import CompiledForest, ForestScorer
from siftline.detectors.kinds import make_scorer

SAMPLE = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
FOREST = IsolationForest(n_estimators=20, random_state=0).fit(SAMPLE)
EXPECTED = FOREST.score_samples(SAMPLE)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> IsolationForest:
    """A forest that cannot score by itself any more."""
    forest = IsolationForest(n_estimators=20, random_state=0).fit(SAMPLE)
    compiled = ForestScorer(forest)
    compiled.score_samples(SAMPLE[:1])
    monkeypatch.setattr(IsolationForest, "score_samples", lambda *_: pytest.fail("scikit-learn was asked"))
    return compiled


@pytest.mark.usefixtures("kernels")
def test_with_kernels_scikit_learn_is_not_asked(alone: ForestScorer) -> None:
    assert alone.score_samples(SAMPLE).tobytes() == EXPECTED.tobytes()


@pytest.mark.usefixtures("kernels")
def test_the_scorer_of_a_forest_uses_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    kernels_score = CompiledForest.score_samples
    monkeypatch.setattr(
        CompiledForest, "score_samples", lambda *given: asked.append(given) or kernels_score(*given)
    )
    assert make_scorer("isolation_forest", FOREST).score_samples(SAMPLE).tobytes() == EXPECTED.tobytes()
    assert asked[-1][1] is SAMPLE


def test_without_kernels_scikit_learn_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CompiledForest", lambda *_: pytest.fail("compiled without kernels"))
    assert ForestScorer(FOREST, Kernels(tmp_path)).score_samples(SAMPLE).tobytes() == EXPECTED.tobytes()


@pytest.mark.usefixtures("kernels")
def test_a_forest_is_compiled_once_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    class Counted(CompiledForest):
        def __init__(self, *given: Any) -> None:
            compiled.append(given)
            super().__init__(*given)

    monkeypatch.setattr(scorer, "CompiledForest", Counted)
    shared = ForestScorer(FOREST)
    matrix = np.tile(SAMPLE, (40, 1))
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(shared.score_samples, [matrix] * 24))
    assert {each.tobytes() for each in scores} == {np.tile(EXPECTED, 40).tobytes()}
    assert len(compiled) == 1


def score_anew(_: int) -> bytes:
    return ForestScorer(FOREST).score_samples(SAMPLE).tobytes()


@pytest.mark.usefixtures("kernels")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_may_be_forked_with_its_kernels() -> None:
    score_anew(0)
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as processes:
        assert set(processes.map(score_anew, range(8))) == {EXPECTED.tobytes()}


class Other(IsolationForest):
    """May score in any way."""


def many_leaf_values() -> IsolationForest:
    sample = np.random.default_rng(1).normal(size=(1500, 4)).astype(np.float32)
    forest = IsolationForest(n_estimators=3, random_state=0, max_samples=1500).fit(sample)
    lengths = [np.linspace(1, 2, tree.tree_.node_count) for tree in forest.estimators_]
    forest._decision_path_lengths = tuple(lengths)
    return forest


def of_another_scikit_learn() -> IsolationForest:
    forest = IsolationForest(n_estimators=3, random_state=0).fit(SAMPLE)
    forest.score_samples = lambda matrix: np.zeros(len(matrix))
    del forest._average_path_length_per_tree
    return forest


def with_a_bit_changed() -> IsolationForest:
    forest = IsolationForest(n_estimators=3, random_state=0).fit(SAMPLE)
    forest.score_samples = lambda matrix: np.nextafter(IsolationForest.score_samples(forest, matrix), 0)
    return forest


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("forest", "why"),
    [
        (Other(n_estimators=3, random_state=0).fit(SAMPLE), "Other is not scikit-learn's IsolationForest"),
        (many_leaf_values(), "leaf values, more than 256"),
        (of_another_scikit_learn(), "_average_path_length_per_tree"),
        (with_a_bit_changed(), "the compiled forest scores differently"),
    ],
    ids=["another class", "many leaf values", "another scikit-learn", "a bit differs"],
)
def test_scikit_learn_scores_a_forest_that_cannot_be_compiled_and_that_is_logged_once(
    forest: IsolationForest, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = Kernels()
    kernels.prepare(10**9)
    with caplog.at_level(logging.INFO):
        for scored in (ForestScorer(forest, kernels), ForestScorer(forest, kernels)):
            for _ in range(2):
                assert scored.score_samples(SAMPLE).tobytes() == forest.score_samples(SAMPLE).tobytes()
    (record,) = caplog.records
    assert record.name == "siftline.detectors.forest.compilation"
    assert record.getMessage().startswith(
        "isolation forests are scored by scikit-learn, which takes many times as long: "
    )
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "matrix",
    [
        SAMPLE[0],
        SAMPLE[:, :3],
        SAMPLE[:0],
        np.array([["a", "b", "c", "d"]]),
        np.ones((2, 4, 1), dtype=np.float32),
    ],
    ids=["one dimension", "a feature less", "no rows", "text", "three dimensions"],
)
def test_other_input_than_a_matrix_is_refused_in_scikit_learns_words(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r".") as expected:
        FOREST.score_samples(matrix)
    with pytest.raises(ValueError, match=r".") as found:
        ForestScorer(FOREST).score_samples(matrix)
    assert str(found.value) == str(expected.value)


@pytest.mark.usefixtures("kernels")
def test_whatever_else_scikit_learn_takes_is_taken() -> None:
    for matrix in (SAMPLE.tolist(), SAMPLE.astype(">f4"), SAMPLE.astype(np.float16), SAMPLE.astype(int)):
        expected = FOREST.score_samples(matrix)
        assert ForestScorer(FOREST).score_samples(matrix).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("kernels")
def test_memory_that_is_not_aligned_is_taken() -> None:
    memory = np.empty(SAMPLE.nbytes + 1, dtype=np.uint8)
    matrix = memory[1:].view(np.float32).reshape(SAMPLE.shape)
    matrix[:] = SAMPLE
    assert not matrix.flags.aligned
    assert ForestScorer(FOREST).score_samples(matrix).tobytes() == EXPECTED.tobytes()


@pytest.mark.usefixtures("kernels")
def test_a_forest_of_very_many_features_is_left_to_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables would take gigabytes, and gain no time."""
    monkeypatch.setattr(scorer, "CompiledForest", lambda *_: pytest.fail("compiled"))
    rows = np.random.default_rng(0).normal(size=(20, 1_001)).astype(np.float32)
    forest = IsolationForest(n_estimators=3, random_state=0).fit(rows)
    assert ForestScorer(forest).score_samples(rows).tobytes() == forest.score_samples(rows).tobytes()
