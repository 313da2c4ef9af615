"""A forest becomes a program over bytes that says the same, in no more operations than it takes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from siftline.detectors.forest.program import OP, PLANE, TREES, Program, compile_forest, floored
from siftline.detectors.forest.ranks import BUCKETS, buckets, rank_tables

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


def forest_on(sample: np.ndarray, **params: object) -> IsolationForest:
    return IsolationForest(random_state=0, **params).fit(sample.astype(np.float32))


def normal(rows: int = 300, features: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, features))


def depths(program: Program, thresholds: list[np.ndarray], row: np.ndarray) -> float:
    """What a program says about a row without missing values: its meaning, word by word."""
    planes = np.zeros(program.planes[-1], dtype=np.int64)
    for feature, (first, last) in enumerate(itertools.pairwise(program.planes)):
        rank = thresholds[feature].searchsorted(row[feature])
        planes[first:last] = np.clip(rank - PLANE * np.arange(last - first), 0, PLANE)
    slots = np.zeros(program.slots + TREES, dtype=np.int64)
    total = 0.0
    for tree, (start, stop) in enumerate(itertools.pairwise(program.starts)):
        for op in program.ops[start:stop]:
            left = slots[op["left"]] if op["kind"] & 2 else op["left"]
            right = slots[op["right"]] if op["kind"] & 1 else op["right"]
            slots[op["out"]] = left if planes[op["plane"]] <= op["rank"] else right
        total += program.leaves[tree, slots[program.slots + tree % TREES]]
    return total


@pytest.mark.parametrize("params", [{"n_estimators": 3}, {"n_estimators": 11, "max_features": 0.4}])
def test_a_program_adds_up_the_depths_of_a_row(params: dict[str, float]) -> None:
    forest = forest_on(normal(), **params)
    program, thresholds = compile_forest(forest)
    rows = normal(50).astype(np.float32)
    found = np.array([depths(program, thresholds, row) for row in rows])
    normal_depth = -found / np.log2(-forest.score_samples(rows))
    np.testing.assert_allclose(normal_depth, normal_depth[0], rtol=1e-12)


def test_nodes_that_decide_nothing_are_left_out() -> None:
    forest = forest_on(normal())
    program, thresholds = compile_forest(forest)
    inner = sum((tree.tree_.children_left >= 0).sum() for tree in forest.estimators_)
    assert len(program.ops) < 0.9 * inner
    assert sum(map(len, thresholds)) <= len(program.ops)


def test_a_forest_of_leaves_has_no_operations() -> None:
    program, thresholds = compile_forest(forest_on(np.ones((50, 2)), n_estimators=3))
    assert len(program.ops) == 0
    assert program.planes.tolist() == [0, 0, 0]
    assert depths(program, thresholds, np.zeros(2)) == program.leaves[:, 0].sum()


def test_padding_of_the_last_pass_adds_nothing() -> None:
    program, _ = compile_forest(forest_on(normal(), n_estimators=TREES + 1))
    assert len(program.leaves) == len(program.starts) - 1 == 2 * TREES
    assert program.leaves[TREES + 1 :].tobytes() == bytes(program.leaves[TREES + 1 :].nbytes)
    assert (program.starts[TREES + 1 :] == len(program.ops)).all()


def test_no_operation_writes_where_it_reads() -> None:
    ops = compile_forest(forest_on(normal(2000), max_samples=1024))[0].ops
    assert ops.dtype == OP
    for kind, operand in ((2, "left"), (1, "right")):
        reads = ops[(ops["kind"] & kind) > 0]
        assert len(reads)
        assert (reads["out"] != reads[operand]).all()


def test_missing_values_go_where_each_node_sends_them() -> None:
    sample = normal()
    sample[::5, 1] = np.nan
    program, _ = compile_forest(forest_on(sample))
    apart = program.ops["plane_if_missing"] - program.ops["plane"]
    assert set(apart.tolist()) == {0, program.planes[-1]}


def test_a_tree_with_too_many_leaf_values_is_refused() -> None:
    forest = forest_on(normal(4000), n_estimators=2, max_samples=4000)
    values = np.linspace(1, 2, forest.estimators_[1].tree_.node_count)
    forest._decision_path_lengths = (forest._decision_path_lengths[0], values)
    with pytest.raises(ValueError, match=r"^a tree has \d+ leaf values, more than 256$"):
        compile_forest(forest)


@given(st.floats(allow_nan=False), singles)
@example(math.inf, 1.0)
@example(1e300, float(np.finfo(np.float32).max))
def test_a_float32_is_at_most_a_threshold_if_it_is_at_most_the_floored_one(
    threshold: float, value: float
) -> None:
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        tried = np.array([value, near, *(np.nextafter(near, np.float32(end)) for end in (-np.inf, np.inf))])
    floor = floored(np.array([threshold]))
    assert ((tried <= floor) == (tried.astype(np.float64) <= threshold)).all()


@given(st.lists(singles, min_size=1, max_size=40, unique=True), st.lists(singles, min_size=1, max_size=20))
def test_a_bucket_and_a_search_of_so_many_steps_find_the_rank(
    thresholds: list[float], values: list[float]
) -> None:
    known = np.unique(np.array(thresholds, dtype=np.float32))
    tables = rank_tables([known])
    value = np.concatenate([np.array(values, dtype=np.float32), known])
    rank = tables.firsts[0][buckets(value, tables.lows[0], tables.scales[0])]
    for step in reversed(range(tables.steps[0])):
        rank = rank + ((value > tables.thresholds[rank + (1 << step) - 1]) << step)
    assert rank.tolist() == known.searchsorted(value).tolist()


def test_buckets_take_most_of_the_search() -> None:
    known = np.sort(np.random.default_rng(0).normal(size=500).astype(np.float32))
    assert rank_tables([known]).steps.tolist() <= [3]
    assert BUCKETS > 500
