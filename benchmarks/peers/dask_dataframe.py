"""(c): a dask.dataframe, a partition for each row group, `map_partitions` on two workers."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster
from sklearn.ensemble import IsolationForest

from benchmarks.peers.common import KEY, WORKERS, Floats, Job, fit, matrix, score


def main(job: Job) -> None:
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        frame = dd.read_parquet(job.data, split_row_groups=True)
        model = client.scatter(fit(_sample(job, frame)), broadcast=True)
        meta = {KEY: "int64", "score": "float64"}
        scored = frame.map_partitions(_scored, model, job.features, meta=meta).persist()
        threshold = scored["score"].nlargest(job.anomalies).min().compute()
        labels = (scored["score"] >= threshold).astype("int8")
        scored.assign(label=labels).to_parquet(job.output, write_index=False)


def _sample(job: Job, frame: dd.DataFrame) -> Floats:
    given = job.given_sample()
    if given is not None:
        return given
    return matrix(frame[job.features].sample(frac=job.share, random_state=0).compute(), job.features)


def _scored(rows: pd.DataFrame, model: IsolationForest, features: list[str]) -> pd.DataFrame:
    scores = score(model, matrix(rows, features)) if len(rows) else np.empty(0)
    return pd.DataFrame({KEY: rows[KEY], "score": scores})
