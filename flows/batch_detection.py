"""Batch detection: the pipeline from a configuration to a published result."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from flows.conclusion import conclude
from flows.patience import PatientTaskRunner
from flows.pipeline import run_pipeline
from siftline.config import BatchConfig
from siftline.lease import Lease
from siftline.loading import resolve_config
from siftline.types import BatchResult


@flow(name="batch-detection", persist_result=False, task_runner=PatientTaskRunner())
def batch_detection(config: BatchConfig, fresh: bool = False) -> BatchResult:
    """Find the anomalies of a batch.

    Args:
        config: The batch: the rows to look at, what finds the anomalies, and where the result goes.
        fresh: Start over, even if an earlier run of the same job has left work that could be taken up.
    """

    def work(lease: Lease) -> BatchResult:
        now = flow_run.scheduled_start_time or datetime.now(UTC)
        return run_pipeline(resolve_config(config, now), lease, fresh=fresh)

    return conclude(config, work)
