"""The rows that may turn out to be anomalies: kept while they are at hand, enough of them or none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.engine import SerialExecutor
from siftline.source.reading import read_pieces
from siftline.stages.candidates import Candidates
from siftline.stages.combine import combine_results
from siftline.storage.parquet import read_part, read_scores
from siftline.storage.records import StoredFile
from siftline.types import Receipts
from tests.support import make_config, make_table, run_job, stage_job, write_files

scores_of_batches = st.lists(
    st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=40), min_size=1, max_size=8
)


@given(batches=scores_of_batches, share=st.floats(0.001, 0.5), threshold=st.none() | st.floats(0, 1))
def test_all_rows_from_the_floor_upwards_are_kept_in_order(
    batches: list[list[float]], share: float, threshold: float | None
) -> None:
    every = np.concatenate([np.array(batch) for batch in batches])
    candidates = Candidates(len(every), share, threshold)
    start = 0
    for batch in batches:
        table = pa.table({"position": np.arange(start, start + len(batch))})
        candidates.add(table, np.array(batch))
        start += len(batch)

    kept = candidates.rows()

    if kept is None:  # too many
        wanted = 4 * max(share, 0.0025) * len(every) if threshold is None else np.sum(every >= threshold)
        assert wanted > 0.25 * len(every)
        return
    expected = np.flatnonzero(every >= candidates.floor)
    assert kept["position"].to_pylist() == expected.tolist()
    assert kept["score"].to_pylist() == every[expected].tolist()
    if threshold is None:
        assert len(kept) >= min(math.ceil(share * len(every)), np.isfinite(every).sum())


def test_memory_is_bounded_even_if_scores_only_rise() -> None:
    candidates = Candidates(rows=100_000, share=0.001, threshold=None)
    for start in range(0, 100_000, 1_000):
        scores = np.arange(start, start + 1_000, dtype=np.float64)
        candidates.add(pa.table({"x": scores}), scores)
        assert sum(table.num_rows for table in candidates._tables) <= 3_000
    kept = candidates.rows()
    assert kept is not None
    assert kept["x"].to_pylist() == list(range(99_000, 100_000))


@pytest.mark.parametrize(("share", "threshold"), [(0.1, None), (0.001, 0.5)])
def test_too_many_candidates_are_not_held(share: float, threshold: float | None) -> None:
    candidates = Candidates(rows=1_000, share=share, threshold=threshold)
    for _ in range(10):
        candidates.add(pa.table({"x": np.arange(100.0)}), np.ones(100))
        assert sum(table.num_rows for table in candidates._tables) <= 250
    assert candidates.rows() is None


ROWS = 30_000


def anomalies_of(directory: Path, chunk_rows: int = 15_000, **sections: Any) -> pa.Table:
    """The anomalies of a job whose chunks are large enough for candidates, unless told otherwise."""
    source = write_files(directory / "data", make_table(ROWS), row_group=15_000)
    chunking = {"rows": chunk_rows}
    job = run_job(make_config(directory / str(chunk_rows), source, chunking=chunking, **sections))
    return job.anomalies


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"threshold": {"score": 0.6}},
        {"threshold": {"score": 0.1}},
        {"threshold": {"contamination": 0.3}},
        {"threshold": {"quantile": 0.99}},
        {"source": {"key": ["id"], "features": ["x", "color"]}, "preprocess": {"categorical": "onehot"}},
        {"source": {"key": ["id", "at"], "features": ["x", "n"]}, "output": {"columns": ["color", "at"]}},
    ],
)
def test_the_anomalies_are_the_same_as_without_candidates(tmp_path: Path, sections: dict[str, Any]) -> None:
    kept, read_again = anomalies_of(tmp_path, **sections), anomalies_of(tmp_path, 5_000, **sections)
    assert kept.num_rows
    assert kept.equals(read_again)


@pytest.mark.parametrize(("columns", "read"), [([], []), (["color"], ["color"])])
def test_to_label_only_columns_are_read_that_were_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str], read: list[str]
) -> None:
    asked: set[str] = set()

    def watched(files: Any, pieces: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
        asked.update(names)
        return read_pieces(files, pieces, names)

    monkeypatch.setattr("siftline.stages.labelling.read_pieces", watched)
    anomalies_of(tmp_path, output={"columns": columns})
    assert sorted(asked) == read


def with_too_few_candidates(receipts: Receipts) -> Receipts:
    """Receipts whose candidates all score higher than any threshold."""
    return Receipts(
        (
            receipt.model_copy(update={"candidates": receipt.candidates.model_copy(update={"floor": 1.0})})
            for receipt in receipts.in_order
            if receipt.candidates is not None
        ),
        receipts.computed,
    )


def test_scores_are_read_again_only_where_candidates_are_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    def watched(directory: Path, file: StoredFile) -> np.ndarray:
        read.add(file.name)
        return read_scores(directory, file)

    monkeypatch.setattr("siftline.stages.high_scores.read_scores", watched)
    source = write_files(tmp_path / "data", make_table(ROWS))
    config = make_config(tmp_path, source, chunking={"rows": 15_000})
    plan, detector, receipts, enough = stage_job(config)
    assert not read
    few = combine_results(plan, detector, with_too_few_candidates(receipts), SerialExecutor())
    assert len(read) == len(receipts.in_order) == 2
    assert few.threshold == enough.threshold
    assert [file.digest for file in few.anomaly_files] == [file.digest for file in enough.anomaly_files]


def test_damaged_candidates_cost_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = anomalies_of(tmp_path)

    def damaged(directory: Path, file: StoredFile, columns: list[str] | None = None) -> pa.Table:
        if "candidates" in file.name:
            path = directory / file.name
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return read_part(directory, file, columns)

    monkeypatch.setattr("siftline.stages.high_scores.read_part", damaged)
    assert anomalies_of(tmp_path / "again").equals(expected)
