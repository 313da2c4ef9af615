"""The step that scores the chunks, on the cluster."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from siftline import detect
from siftline.executor import Executor
from siftline.lease import Lease
from siftline.progress import listening
from siftline.types import BatchPlan, DetectorRef, Receipts
from tasks.checkpoints import open_checkpoints
from tasks.progress import ProgressArtifact, link_dashboard


@task(name="detect_chunks", task_run_name="detect_chunks", cache_policy=NO_CACHE, persist_result=False)
def detect_chunks(
    plan: BatchPlan, detector: DetectorRef, executor: Executor, lease: Lease, partial: bool
) -> Receipts:
    """Score the chunks that are missing; see `siftline.detect.detect_chunks`. If `partial`, give them up."""
    if partial:
        return detect.collect_receipts(plan, detector, open_checkpoints(plan))
    link_dashboard(executor.dashboard)
    with ProgressArtifact() as progress, listening(progress):
        receipts = detect.detect_chunks(plan, detector, executor, open_checkpoints(plan), lease)
    get_run_logger().info("%d chunks computed, %d reused", receipts.computed, receipts.reused)
    return receipts
