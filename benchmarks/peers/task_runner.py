"""(d): a Prefect task for each row group, on prefect-dask's `DaskTaskRunner`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from prefect import flow, task
from prefect_dask.task_runners import DaskTaskRunner
from sklearn.ensemble import IsolationForest

from benchmarks.peers.common import KEY, WORKERS, Floats, Job, fit_streamed, matrix, score, write


def main(job: Job) -> None:
    runner: Any = DaskTaskRunner(
        cluster_kwargs={"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
    )

    @task
    def score_group(model: IsolationForest, group: int) -> tuple[npt.NDArray[np.int64], Floats]:
        with pq.ParquetFile(job.data) as file:
            rows = file.read_row_group(group)
        return rows[KEY].to_numpy(), score(model, matrix(rows, job.features))

    @flow(task_runner=runner)
    def detect() -> None:
        model = fit_streamed(job)
        futures = [score_group.submit(model, group) for group in range(job.row_groups)]
        ids, scores = zip(*(future.result() for future in futures), strict=True)
        write(np.concatenate(ids), np.concatenate(scores), job)

    detect()
