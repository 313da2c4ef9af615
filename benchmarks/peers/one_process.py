"""(a) and (b): pandas or pyarrow with scikit-learn, in one process."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.ensemble import IsolationForest

from benchmarks.peers.common import (
    BATCH_ROWS,
    KEY,
    SAMPLE_ROWS,
    TREES,
    Job,
    fit_streamed,
    matrix,
    score,
    write,
)


def with_pandas(job: Job) -> None:
    """Everything in memory, with all the cores that scikit-learn's own switch gives."""
    frame = pd.read_parquet(job.data)
    values = frame[job.features]
    if job.sample is None:
        sample = values.sample(min(SAMPLE_ROWS, len(frame)), random_state=0)
    else:
        sample = pd.read_parquet(job.sample)[job.features]
    model = IsolationForest(n_estimators=TREES, n_jobs=-1, random_state=0).fit(sample)
    write(frame[KEY].to_numpy(), -model.score_samples(values), job)


def with_threads(job: Job) -> None:
    """The same by someone who knows that ``score_samples`` takes its threads from joblib's context."""
    from joblib import parallel_config

    with parallel_config("threading", n_jobs=-1):
        with_pandas(job)


def with_stream(job: Job) -> None:
    """Batch by batch."""
    model = fit_streamed(job)
    ids, scores = [], []
    with pq.ParquetFile(job.data) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            ids.append(batch[KEY].to_numpy())
            scores.append(score(model, matrix(batch, job.features)))
    write(np.concatenate(ids), np.concatenate(scores), job)
