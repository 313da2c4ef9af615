"""(e): Ray Data, `map_batches` on two cores."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.peers.common import BATCH_ROWS, KEY, WORKERS, Floats, Job, fit, matrix, score, threshold_of

_OBJECT_STORE_BYTES = 4 << 30
# Its default of 128 MiB is more than a million rows, too coarse to keep two cores busy to the end.
_BLOCK_BYTES = 32 << 20


def main(job: Job) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # it would leave a token in the user's home
    import ray
    from ray.data import DataContext

    # A short path: its sockets are in there, whose names may not have more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory:
        ray.init(
            num_cpus=WORKERS,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=directory,
        )
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = _BLOCK_BYTES
        try:
            _detect(ray, job)
        finally:
            ray.shutdown()


def _detect(ray: Any, job: Job) -> None:
    rows = ray.data.read_parquet(str(job.data))
    sample = job.given_sample()
    if sample is None:
        drawn = rows.select_columns(job.features).random_sample(job.share, seed=0).to_pandas()
        sample = matrix(drawn, job.features)
    model = ray.put(fit(sample))
    features = job.features

    def scored(batch: pa.Table) -> pa.Table:
        return pa.table({KEY: batch[KEY], "score": score(ray.get(model), matrix(batch, features))})

    scores = rows.map_batches(scored, batch_format="pyarrow", batch_size=BATCH_ROWS).materialize()
    every: Floats = scores.select_columns(["score"]).to_pandas()["score"].to_numpy()
    threshold = threshold_of(every, job.anomalies)

    def labelled(batch: pa.Table) -> pa.Table:
        return batch.append_column(
            "label", pa.array((batch["score"].to_numpy() >= threshold).astype(np.int8))
        )

    scores.map_batches(labelled, batch_format="pyarrow", batch_size=None).write_parquet(str(job.output))
