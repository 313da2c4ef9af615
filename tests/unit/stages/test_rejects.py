"""Rows that cannot be scored are found, exactly and cheaply, and the others are scored as ever."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from siftline.batch_plan import Feature
from siftline.detectors.fitted import FittedModel, Typical
from siftline.engine import SerialExecutor
from siftline.errors import RowError
from siftline.stages.detect import chunk_tasks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.stages.rejects import SCHEMA, Reject, rejected_rows, save_rejects, score_around, too_many
from siftline.stages.scoring import ChunkTask, score_chunk, score_table
from siftline.storage.parquet import is_intact
from siftline.types import ChunkReceipt, Float64s
from tests.support import make_config, make_table, write_files

ROWS = 10_000
ANYWHERE = pytest.mark.parametrize("bad", [0, 1, 4_999, 5_000, 7_777, ROWS - 1])


class Scorer:
    """Gives every row a score of its own, unless there is a bad row; counts how often it is asked."""

    def __init__(self, bad: Iterable[int] = (), told: bool = False) -> None:
        self._bad = pa.array(sorted(bad), pa.int64())
        self._told = told
        self.asked: list[list[int]] = []

    @property
    def calls(self) -> int:
        return len(self.asked)

    def __call__(self, table: pa.Table) -> Float64s:
        self.asked.append(table["n"].to_pylist())
        found = np.flatnonzero(pc.is_in(table["n"], self._bad).to_numpy())
        if len(found):
            raise RowError("not to be digested", "correct it", tuple(found.tolist()) if self._told else ())
        return scores_of(table["n"].to_numpy())


def scores_of(rows: npt.NDArray[np.int64]) -> Float64s:
    return np.asarray(np.sqrt(rows + 0.1))


def numbered(rows: int) -> pa.Table:
    return pa.table({"n": np.arange(rows)})


def most_calls(rows: int) -> int:
    return 2 * math.ceil(math.log2(rows)) + 1


def assert_scored_around(scores: Float64s, baseline: Float64s, bad: Iterable[int]) -> None:
    """Check that bad rows have no score, and that all others have the baseline's, bit for bit."""
    good = np.setdiff1d(np.arange(len(baseline)), sorted(bad))
    assert np.isnan(scores[sorted(bad)]).all()
    assert scores[good].tobytes() == baseline[good].tobytes()


# Bisection


@ANYWHERE
def test_one_unnamed_bad_row_takes_few_calls(bad: int) -> None:
    scorer = Scorer([bad])
    scores, rejects = score_around(scorer, numbered(ROWS), 0, limit=1)
    assert scorer.calls <= most_calls(ROWS) == 29
    assert_scored_around(scores, scores_of(np.arange(ROWS)), [bad])
    assert [(one.row, one.error, one.message) for one in rejects] == [(bad, "RowError", "not to be digested")]


@given(rows=st.integers(1, 400), data=st.data())
def test_one_bad_row_takes_at_most_twice_the_logarithm_of_all(rows: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, rows - 1))
    scorer = Scorer([bad])
    _, rejects = score_around(scorer, numbered(rows), 0, limit=1)
    assert [one.row for one in rejects] == [bad]
    assert scorer.calls <= most_calls(rows)


def test_the_attempts_of_a_row_are_those_that_it_was_in() -> None:
    scorer = Scorer([11])
    _, (reject,) = score_around(scorer, numbered(64), 0, limit=1)
    assert reject.attempts == sum(11 in asked for asked in scorer.asked) == 7


@given(rows=st.integers(1, 150), data=st.data(), told=st.booleans(), first=st.integers(0, 10**12))
def test_any_set_of_bad_rows_is_found_exactly(rows: int, data: st.DataObject, told: bool, first: int) -> None:
    bad = data.draw(st.sets(st.integers(0, rows - 1)))
    scorer = Scorer(bad, told)
    scores, rejects = score_around(scorer, numbered(rows), first, limit=rows)
    assert [one.row for one in rejects] == [first + row for row in sorted(bad)]
    assert_scored_around(scores, scores_of(np.arange(rows)), bad)
    # What was scored once is not scored again.
    assert scorer.calls <= (2 if told else 1 + 2 * len(bad) * math.ceil(math.log2(rows)))


def test_without_a_bad_row_the_table_itself_is_scored_once() -> None:
    table, seen = numbered(100), []

    def score(rows: pa.Table) -> Float64s:
        seen.append(rows)
        return scores_of(rows["n"].to_numpy())

    scores, rejects = score_around(score, table, 0, limit=0)
    assert rejects == []
    assert scores.tobytes() == scores_of(np.arange(100)).tobytes()
    assert len(seen) == 1
    assert seen[0] is table


# Rows that the error tells


@pytest.mark.parametrize("bad", [{0}, {99}, {3, 4, 50}, set(range(99))])
def test_named_rows_take_one_more_call(bad: set[int]) -> None:
    scorer = Scorer(bad, told=True)
    scores, rejects = score_around(scorer, numbered(100), 1000, limit=100)
    assert scorer.calls == 2
    assert [(one.row, one.attempts) for one in rejects] == [(1000 + row, 1) for row in sorted(bad)]
    assert_scored_around(scores, scores_of(np.arange(100)), bad)


def test_with_all_rows_named_nothing_is_left_to_try() -> None:
    scorer = Scorer(range(100), told=True)
    scores, rejects = score_around(scorer, numbered(100), 0, limit=100)
    assert (scorer.calls, len(rejects)) == (1, 100)
    assert np.isnan(scores).all()


def test_rows_named_for_one_reason_after_the_other_are_each_tried_once_more() -> None:
    first, second = Scorer([5], told=True), Scorer([7, 8], told=True)

    def score(table: pa.Table) -> Float64s:
        first(table)
        return second(table)

    scores, rejects = score_around(score, numbered(20), 0, limit=20)
    assert [(one.row, one.attempts) for one in rejects] == [(5, 1), (7, 2), (8, 2)]
    assert (first.calls, second.calls) == (3, 2)
    assert_scored_around(scores, scores_of(np.arange(20)), {5, 7, 8})


# Scores that are none


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_a_reject(value: float) -> None:
    scorer = Scorer()

    def score(table: pa.Table) -> Float64s:
        scores = scorer(table)
        scores[[2, 9]] = value
        return scores

    scores, rejects = score_around(score, numbered(10), 100, limit=10)
    assert scorer.calls == 1
    assert rejects == [
        Reject(102, "RowError", "the detector returned no finite score", 1),
        Reject(109, "RowError", "the detector returned no finite score", 1),
    ]
    assert_scored_around(scores, scores_of(np.arange(10)), {2, 9})


# Tolerance


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_beyond_the_limit_nothing_more_is_tried(limit: int) -> None:
    scorer = Scorer(range(0, 1024, 2))
    scores, rejects = score_around(scorer, numbered(1024), 0, limit)
    assert [one.row for one in rejects] == list(range(0, 2 * (limit + 1), 2))
    assert scorer.calls <= (limit + 1) * most_calls(1024)
    # Down to the first row, and then not far from there.
    assert max(max(asked) for asked in scorer.asked[10:]) < 64
    assert np.isnan(scores[64:]).all()


def test_at_the_limit_all_others_are_scored() -> None:
    bad = {1, 500, 1023}
    scores, rejects = score_around(Scorer(bad), numbered(1024), 0, limit=3)
    assert len(rejects) == 3
    assert_scored_around(scores, scores_of(np.arange(1024)), bad)


@pytest.mark.parametrize(
    ("rejects", "limit", "text"),
    [
        (1, 0, "row 7: bad (1 row so far cannot be scored, none is tolerated; see /failed)"),
        (2, 1, "row 7: bad (2 rows so far cannot be scored, 1 is tolerated; see /failed)"),
        (1234, 1000, "row 7: bad (1,234 rows so far cannot be scored, 1,000 are tolerated; see /failed)"),
    ],
)
def test_the_error_for_too_many_rejects_gives_the_first_and_their_file(
    rejects: int, limit: int, text: str
) -> None:
    error = too_many(rejects, limit, "row 7: bad", Path("/failed"))
    assert error.problem == text
    assert "tolerate.rows" in error.remedy


# The detectors' own complaints

FEATURES = (Feature(name="x", column="x"), Feature(name="y", column="y"))
BAD = 123.25


class Fussy:
    """A fitted estimator that refuses a certain value, and does not say where it is."""

    def __init__(self, estimator: Any, error: Exception) -> None:
        self._estimator = estimator
        self._error = error
        self.calls = 0

    def score_samples(self, matrix: npt.NDArray[np.float32]) -> Any:
        self.calls += 1
        if (matrix[:, 0] == BAD).any():
            raise self._error
        return self._estimator.score_samples(matrix)


@cache
def plain_model() -> FittedModel:
    matrix = np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32)
    forest = IsolationForest(n_estimators=5, random_state=0).fit(matrix)
    typical = (Typical(0.0, 1.0),) * 2
    return FittedModel("elliptic_envelope", FEATURES, {}, typical, None, forest)


def fussy_model(error: Exception) -> tuple[FittedModel, Fussy]:
    fussy = Fussy(plain_model().estimator, error)
    return replace(plain_model(), estimator=fussy), fussy


def table_with(bad: Sequence[int], value: float = BAD) -> pa.Table:
    values = np.random.default_rng(2).normal(size=(ROWS, 2)).astype(np.float32)
    values[bad, 0] = value
    return pa.table({"x": values[:, 0], "y": values[:, 1]})


def scorer_of(model: FittedModel) -> Callable[[pa.Table], Float64s]:
    return lambda rows: score_table(model, rows)


@ANYWHERE
def test_a_complaint_of_the_detector_is_bisected_to_its_row(bad: int) -> None:
    model, fussy = fussy_model(ValueError("Input X\n  contains  something"))
    table = table_with([bad])
    scores, rejects = score_around(scorer_of(model), table, 0, limit=1)
    assert fussy.calls <= most_calls(ROWS)
    (reject,) = rejects
    assert (reject.row, reject.error) == (bad, "RowError")
    assert reject.message == "ValueError: Input X contains something"
    # The others have the scores that one call over all rows gives them.
    assert_scored_around(scores, score_table(plain_model(), table), [bad])


@pytest.mark.parametrize(
    "error", [ValueError("no"), ZeroDivisionError("no"), FloatingPointError("no"), OverflowError("no")]
)
def test_a_librarys_value_error_is_about_rows(error: Exception) -> None:
    model, _ = fussy_model(error)
    with pytest.raises(RowError, match=f"{type(error).__name__}: no") as caught:
        score_table(model, table_with([4]))
    assert caught.value.rows == ()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [TypeError("bug"), MemoryError("too little"), OSError("disk")])
def test_other_errors_come_through(error: Exception) -> None:
    model, fussy = fussy_model(error)
    with pytest.raises(type(error)):
        score_around(scorer_of(model), table_with([4]), 0, limit=ROWS)
    assert fussy.calls == 1


def test_infinite_values_are_named_and_take_one_call_of_the_detector() -> None:
    model, fussy = fussy_model(ValueError("never"))
    bad = [3, 700, 9_000]
    table = table_with(bad, math.inf)
    scores, rejects = score_around(scorer_of(model), table, 0, limit=3)
    assert fussy.calls == 1
    assert [one.row for one in rejects] == bad
    assert rejects[0].message.startswith("feature x is infinite")
    assert_scored_around(scores, score_table(plain_model(), table_with(bad, 0.0)), bad)


# What is kept of them


def test_the_table_of_rejects_has_their_keys_and_reasons() -> None:
    table = pa.table({"id": ["a", "b", "c"], "part": [1, 2, 3], "x": [0.5, 0.6, 0.7]})
    rejects = [Reject(10, "RowError", "too small", 1), Reject(12, "RowError", "too large", 4)]
    rows = rejected_rows(table, ("part", "id"), 10, rejects)
    assert rows.column_names == ["part", "id", "row", "error", "message", "attempts"]
    assert rows.to_pylist() == [
        {"part": 1, "id": "a", "row": 10, "error": "RowError", "message": "too small", "attempts": 1},
        {"part": 3, "id": "c", "row": 12, "error": "RowError", "message": "too large", "attempts": 4},
    ]


def test_without_rejects_the_table_has_the_same_columns() -> None:
    table = pa.table({"id": ["a"], "x": [0.5]})
    some = rejected_rows(table, ("id",), 0, [Reject(0, "RowError", "no", 1)])
    none = rejected_rows(table, ("id",), 0, [])
    assert none.num_rows == 0
    assert none.schema == some.schema
    assert rejected_rows(table, (), 0, []).schema == pa.schema(SCHEMA)


def test_rejects_are_saved_with_their_digest_and_the_first(tmp_path: Path) -> None:
    rows = rejected_rows(
        pa.table({"id": ["a", "b"]}), ("id",), 5, [Reject(5, "E", "one", 1), Reject(6, "E", "two", 1)]
    )
    rejects = save_rejects(rows, tmp_path / "failed" / "chunk.parquet")
    assert (rejects.rows, rejects.first) == (2, "row 5: one")
    assert is_intact(tmp_path / "failed", rejects.file)
    assert pq.read_table(tmp_path / "failed" / "chunk.parquet").equals(rows)


# A whole chunk


def tasks_with(tmp_path: Path, bad: dict[int, float], rows: int, tolerated: int) -> ChunkTask:
    """The task of a job's only chunk, with some values of x replaced."""
    table = make_table(rows)
    x = table["x"].to_numpy().copy()
    for row, value in bad.items():
        x[row] = value
    table = table.set_column(table.column_names.index("x"), "x", pa.array(x))
    source = write_files(tmp_path / "data", table, row_group=rows // 3)
    config = make_config(
        tmp_path,
        source,
        source={"key": ["id"]},
        chunking={"rows": rows},
        tolerate={"rows": tolerated},
    )
    plan = plan_batch(config)
    (task,) = chunk_tasks(plan, fit_detector(plan, SerialExecutor()), [0])
    return task


def part_of(task: ChunkTask, receipt: ChunkReceipt) -> pa.Table:
    return pq.read_table(Path(task.parts) / receipt.part.name)


def failed_of(task: ChunkTask, receipt: ChunkReceipt) -> pa.Table:
    assert receipt.rejects is not None
    return pq.read_table(Path(task.failed) / receipt.rejects.file.name)


def test_a_chunk_with_bad_rows_scores_the_others_and_sets_those_aside(tmp_path: Path) -> None:
    task = tasks_with(tmp_path, {7: math.inf, 2_000: -math.inf}, rows=3_000, tolerated=2)
    receipt = score_chunk(task)
    part = part_of(task, receipt)
    assert part["id"].to_pylist() == make_table(3_000)["id"].to_pylist()
    assert np.flatnonzero(np.isnan(part["score"].to_numpy())).tolist() == [7, 2_000]
    assert (receipt.summary.rows, receipt.summary.non_finite, receipt.rows_rejected) == (3_000, 2, 2)
    failed = failed_of(task, receipt)
    assert failed.column_names == ["id", "row", "error", "message", "attempts"]
    assert failed["id"].to_pylist() == ["r000007", "r002000"]
    assert failed["row"].to_pylist() == [7, 2_000]
    assert receipt.rejects is not None
    assert receipt.rejects.first.startswith("row 7: feature x is infinite")


@pytest.mark.parametrize("batch_divisor", [2, 3, 8])
def test_in_blocks_a_chunk_takes_less_memory_and_has_the_same_scores_and_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_divisor: int
) -> None:
    sizes: list[int] = []

    def watched(model: FittedModel, table: pa.Table) -> Float64s:
        sizes.append(table.num_rows)
        return score_table(model, table)

    monkeypatch.setattr("siftline.stages.scoring.score_table", watched)
    task = tasks_with(tmp_path, {0: math.inf, 1_499: math.inf, 2_999: math.inf}, rows=3_000, tolerated=3)
    whole, pieces = score_chunk(task), score_chunk(replace(task, batch_divisor=batch_divisor))
    parts = [part_of(task, receipt) for receipt in (whole, pieces)]
    assert parts[0]["score"].to_numpy().tobytes() == parts[1]["score"].to_numpy().tobytes()
    assert parts[0]["id"].equals(parts[1]["id"])
    assert failed_of(task, whole).equals(failed_of(task, pieces))
    assert whole.summary == pieces.summary
    assert sizes[0] == 3_000
    assert max(sizes[2:]) <= 3_000 // batch_divisor


def test_a_chunk_with_one_bad_row_too_many_is_refused_with_the_evidence_kept(tmp_path: Path) -> None:
    task = tasks_with(tmp_path, {7: math.inf, 8: math.inf}, rows=3_000, tolerated=2)
    with pytest.raises(RowError) as caught:
        score_chunk(replace(task, tolerated_rows=1))
    assert "row 7: feature x is infinite" in caught.value.problem
    assert "2 rows so far cannot be scored, 1 is tolerated" in caught.value.problem
    (path,) = Path(task.failed).iterdir()
    assert str(path) in caught.value.problem
    assert pq.read_table(path)["row"].to_pylist() == [7, 8]
