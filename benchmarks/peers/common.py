"""What the peers have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import IsolationForest

KEY = "id"
SAMPLE_ROWS = 200_000
TREES = 100
CONTAMINATION = 0.001
WORKERS = 2
BATCH_ROWS = 250_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """What to do: the input, where the scores go, and a file of rows to fit on, where they are given."""

    data: Path
    output: Path
    sample: Path | None = None

    @property
    def rows(self) -> int:
        return int(pq.read_metadata(self.data).num_rows)

    @property
    def row_groups(self) -> int:
        return int(pq.read_metadata(self.data).num_row_groups)

    @property
    def features(self) -> list[str]:
        return [name for name in pq.read_schema(self.data).names if name != KEY]

    @property
    def anomalies(self) -> int:
        return math.ceil(CONTAMINATION * self.rows)

    @property
    def share(self) -> float:
        """The share of the rows that makes a sample."""
        return min(1.0, SAMPLE_ROWS / self.rows)

    def given_sample(self) -> Floats | None:
        return None if self.sample is None else matrix(pq.read_table(self.sample), self.features)


def fit(sample: Floats) -> IsolationForest:
    return IsolationForest(n_estimators=TREES, n_jobs=-1, random_state=0).fit(sample)


def fit_streamed(job: Job) -> IsolationForest:
    """Fit on a sample that is drawn evenly from a pass over the file."""
    sample = job.given_sample()
    return fit(np.concatenate(list(_drawn(job))) if sample is None else sample)


def _drawn(job: Job) -> Iterator[Floats]:
    generator = np.random.default_rng(0)
    with pq.ParquetFile(job.data) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=job.features):
            yield matrix(batch, job.features)[generator.random(batch.num_rows) < job.share]


def matrix(rows: pa.RecordBatch | pa.Table | pd.DataFrame, features: Sequence[str]) -> Floats:
    if isinstance(rows, pd.DataFrame):
        return rows[list(features)].to_numpy(dtype=np.float64)
    return np.column_stack([rows[name].to_numpy() for name in features]).astype(np.float64, copy=False)


def score(model: IsolationForest, values: Floats) -> Floats:
    return np.asarray(-model.score_samples(values))


def threshold_of(scores: Floats, anomalies: int) -> float:
    """The score of the last of so many anomalies."""
    return float(np.partition(scores, len(scores) - anomalies)[len(scores) - anomalies])


def write(ids: npt.NDArray[np.int64], scores: Floats, job: Job) -> None:
    """Find the threshold, label, write."""
    labels = (scores >= threshold_of(scores, job.anomalies)).astype(np.int8)
    pd.DataFrame({KEY: ids, "score": scores, "label": labels}).to_parquet(job.output, index=False)
