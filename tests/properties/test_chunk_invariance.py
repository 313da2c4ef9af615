"""However the rows are cut and whoever scores them, the answer is the same, to the bit."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from siftline.engine import DaskExecutor
from siftline.engine.workers import START_METHOD, prepare_workers
from siftline.stages.plan import plan_batch
from tests.support import Job, make_config, make_table, run_job, write_files

ROWS = 400
PREPROCESSED = {
    "source": {"features": ["x", "y", "n", "color"], "timestamp": "at", "key": ["id"]},
    "preprocess": {
        "missing": "median",
        "scale": "robust",
        "categorical": "onehot",
        "cyclic": {"n": 12},
        "time_parts": ["hour", "day_of_week"],
    },
}


@dataclass(frozen=True)
class Case:
    """A configuration on the same rows for every example."""

    sections: dict[str, Any]

    def job(self, home: Path, chunk_rows: int, files: int, row_group: int, executor: Any = None) -> Job:
        table = make_table(ROWS, missing=0.05 if self.sections else 0.0)
        data = write_files(home / "data", table, files, row_group)
        config = make_config(home, data, chunking={"rows": chunk_rows}, **self.sections)
        return run_job(config, executor)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job in one chunk of one file."""
    return Case({}).job(tmp_path_factory.mktemp("whole"), ROWS, 1, ROWS)


@pytest.fixture(scope="module")
def whole_preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Case(PREPROCESSED).job(tmp_path_factory.mktemp("whole"), ROWS, 1, ROWS)


cuts = {
    "chunk_rows": st.integers(15, ROWS + 50),
    "files": st.integers(1, 4),
    "row_group": st.integers(20, ROWS),
}


@settings(max_examples=10)
@given(**cuts)
@example(chunk_rows=4, files=2, row_group=30)
def test_any_cut_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, whole: Job, chunk_rows: int, files: int, row_group: int
) -> None:
    job = Case({}).job(tmp_path_factory.mktemp("cut"), chunk_rows, files, row_group)
    assert job.outcome() == whole.outcome()


@settings(max_examples=5)
@given(batch_divisor=st.integers(2, 9), **cuts)
def test_any_number_of_blocks_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    whole_preprocessed: Job,
    batch_divisor: int,
    chunk_rows: int,
    files: int,
    row_group: int,
) -> None:
    case, home = Case(PREPROCESSED), tmp_path_factory.mktemp("batch_divisor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.plan_batch", functools.partial(plan_batch, batch_divisor=batch_divisor))
        job = case.job(home, chunk_rows, files, row_group)
    assert job.plan.batch_divisor == batch_divisor
    assert job.outcome() == whole_preprocessed.outcome()


@settings(max_examples=5)
@given(**cuts)
def test_any_cut_gives_the_same_scores_after_preprocessing(
    tmp_path_factory: pytest.TempPathFactory,
    whole_preprocessed: Job,
    chunk_rows: int,
    files: int,
    row_group: int,
) -> None:
    job = Case(PREPROCESSED).job(tmp_path_factory.mktemp("cut"), chunk_rows, files, row_group)
    assert job.outcome() == whole_preprocessed.outcome()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scores_are_scikit_learns_own(tmp_path: Path, dtype: type[Any]) -> None:
    table = make_table(ROWS)
    for name in ("x", "y"):
        values = table[name].to_numpy().astype(dtype)
        table = table.set_column(table.column_names.index(name), name, [values])
    data = write_files(tmp_path / "data", table, files=3, row_group=60)
    job = run_job(make_config(tmp_path, data, detector={"params": {}}, chunking={"rows": 70}))

    matrix = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])
    expected = -IsolationForest(random_state=0).fit(matrix).score_samples(matrix)
    assert job.scores.tobytes() == expected.tobytes()
    assert job.combined.threshold == np.sort(expected)[-8]
    assert (job.labels == (expected >= job.combined.threshold)).all()


def test_scores_with_missing_values_are_scikit_learns_own(tmp_path: Path) -> None:
    table = make_table(ROWS, missing=0.1)
    data = write_files(tmp_path / "data", table, files=2, row_group=60)
    job = run_job(make_config(tmp_path, data, detector={"params": {}}, chunking={"rows": 70}))
    matrix = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])
    expected = -IsolationForest(random_state=0).fit(matrix).score_samples(matrix)
    assert np.isnan(matrix).any()
    assert job.scores.tobytes() == expected.tobytes()


def test_rows_come_out_in_the_order_of_the_source(whole: Job, tmp_path: Path) -> None:
    job = Case({}).job(tmp_path, 37, 3, 50)
    assert (job.table["row"].to_numpy() == np.arange(ROWS)).all()
    assert job.scores.tobytes() == whole.scores.tobytes()


def test_equal_rows_get_equal_scores_labels_and_ranks(tmp_path: Path) -> None:
    table = make_table(50).take(np.tile(np.arange(50), 4))
    data = write_files(tmp_path / "data", table, files=2, row_group=30)
    job = run_job(make_config(tmp_path, data, chunking={"rows": 17}, threshold={"contamination": 0.01}))
    assert (job.scores.reshape(4, 50) == job.scores[:50]).all()
    assert (job.labels.reshape(4, 50) == job.labels[:50]).all()
    # Two rows were asked for, and the four that tie at the top cannot be told apart.
    assert job.combined.anomalies == 4
    assert job.anomalies["rank"].to_pylist() == [1, 1, 1, 1]


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, whole: Job, whole_preprocessed: Job
) -> None:
    prepare_workers()
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": START_METHOD}),
        LocalCluster(
            n_workers=4, threads_per_worker=1, memory_limit="1GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for workers in (4, 3, 2, 1):
            executor = DaskExecutor(lambda: client)
            assert len(client.nthreads()) == workers
            cut = {"chunk_rows": 25 + 10 * workers, "files": workers, "row_group": 60, "executor": executor}
            assert Case({}).job(tmp_path / f"{workers}", **cut).outcome() == whole.outcome()
            if workers == 3:
                job = Case(PREPROCESSED).job(tmp_path / "preprocessed", **cut)
                assert job.outcome() == whole_preprocessed.outcome()
            client.retire_workers([next(iter(client.nthreads()))])
