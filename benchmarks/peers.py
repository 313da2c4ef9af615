"""What people write without Siftline. Each does the same job: fit on a sample, score every row, write
scores and labels, with exactly ``ceil(contamination x rows)`` anomalies (and their ties).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import IsolationForest

SAMPLE_ROWS = 200_000
TREES = 100
CONTAMINATION = 0.001
WORKERS = 2
_BATCH_ROWS = 250_000

Scores = npt.NDArray[np.float64]


def with_pandas(data: Path, output: Path, same_sample: bool) -> None:
    """(a) Everything in memory, with all the cores that scikit-learn's own switch gives."""
    frame = pd.read_parquet(data)
    rows = min(SAMPLE_ROWS, len(frame))
    sample = siftlines_sample(data) if same_sample else frame.sample(rows, random_state=0)
    model = IsolationForest(n_estimators=TREES, n_jobs=-1, random_state=0).fit(sample)
    write(-model.score_samples(frame), output)


def with_threads(data: Path, output: Path, same_sample: bool) -> None:
    """(a') As (a), by someone who knows that ``score_samples`` takes its threads from joblib's context."""
    from joblib import parallel_config

    with parallel_config("threading", n_jobs=-1):
        with_pandas(data, output, same_sample)


def with_stream(data: Path, output: Path, same_sample: bool) -> None:
    """(b) Chunk by chunk, in one process."""
    model = fit(data, same_sample)
    with pq.ParquetFile(data) as file:
        scores = [-model.score_samples(matrix(batch)) for batch in file.iter_batches(_BATCH_ROWS)]
    write(np.concatenate(scores), output)


def with_dask(data: Path, output: Path, same_sample: bool) -> None:
    """(c) One Prefect task per row group, on prefect-dask."""
    from prefect import flow, task
    from prefect_dask.task_runners import DaskTaskRunner

    runner: Any = DaskTaskRunner(cluster_kwargs={"n_workers": WORKERS, "threads_per_worker": 1})

    @task
    def score(model: IsolationForest, group: int) -> Scores:
        with pq.ParquetFile(data) as file:
            return np.asarray(-model.score_samples(matrix(file.read_row_group(group))))

    @flow(task_runner=runner)
    def detect() -> None:
        model = fit(data, same_sample)
        groups = range(pq.read_metadata(data).num_row_groups)
        futures = [score.submit(model, group) for group in groups]
        write(np.concatenate([future.result() for future in futures]), output)

    detect()


def fit(data: Path, same_sample: bool) -> IsolationForest:
    """Fit on a sample, drawn evenly from a pass over the file."""
    sample = matrix(siftlines_sample(data)) if same_sample else streamed_sample(data)
    return IsolationForest(n_estimators=TREES, n_jobs=-1, random_state=0).fit(sample)


def streamed_sample(data: Path) -> npt.NDArray[np.float64]:
    generator = np.random.default_rng(0)
    with pq.ParquetFile(data) as file:
        share = SAMPLE_ROWS / file.metadata.num_rows
        return np.concatenate(
            [
                rows[generator.random(len(rows)) < share]
                for rows in map(matrix, file.iter_batches(_BATCH_ROWS))
            ]
        )


def matrix(batch: pa.RecordBatch | pa.Table | pd.DataFrame) -> npt.NDArray[np.float64]:
    columns = batch.to_numpy() if isinstance(batch, pd.DataFrame) else np.column_stack(batch.columns)
    return np.asarray(columns, dtype=np.float64)


def write(scores: Scores, output: Path) -> None:
    """Find the threshold, label, write."""
    k = math.ceil(CONTAMINATION * len(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    labels = (scores >= threshold).astype(np.int8)
    pd.DataFrame({"score": scores, "label": labels}).to_parquet(output, index=False)


def siftlines_sample(data: Path) -> pd.DataFrame:
    """The very rows that Siftline fits on: for the check that all compute the same."""
    from siftline.sample import draw_sample
    from siftline.source import open_parquet
    from siftline.types import SourceFile

    file = open_parquet(data)
    rows = file.metadata.num_rows
    source = SourceFile(path=str(data), size=file.size, mtime_ns=file.mtime_ns, rows=rows, origin=str(data))
    groups = range(file.metadata.num_row_groups)
    sizes = [(0, group, file.metadata.row_group(group).num_rows) for group in groups]
    sample: pd.DataFrame = draw_sample([source], sizes, file.schema.names, SAMPLE_ROWS, 0).to_pandas()
    return sample


PEERS = {"pandas": with_pandas, "threads": with_threads, "stream": with_stream, "dask": with_dask}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--same-sample", action="store_true")
    arguments = parser.parse_args()
    PEERS[arguments.peer](arguments.data, arguments.output, arguments.same_sample)
