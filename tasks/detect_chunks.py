"""The step that scores the chunks, on the cluster."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from siftline.batch_plan import BatchPlan
from siftline.engine import Executor
from siftline.progress import listening
from siftline.stages import detect
from siftline.storage.lease import Lease
from siftline.tasks.adapters.artifacts import ProgressArtifact, link_dashboard
from siftline.tasks.adapters.checkpoints import open_checkpoints
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.suspension import stop_asked
from siftline.types import DetectorRef, Receipts


@task(name="detect_chunks", task_run_name="detect_chunks", cache_policy=NO_CACHE, persist_result=False)
def detect_chunks(
    plan: BatchPlan, detector: DetectorRef, executor: Executor, lease: Lease, partial: bool
) -> Receipts:
    """Score the missing chunks, or give them up if `partial`; see `siftline.stages.detect`."""
    tag_task("batch_processing", plan.job_id)
    store = open_checkpoints(plan)
    if partial:
        return detect.collect_receipts(plan, detector, store)
    link_dashboard(executor.dashboard, plan.config.name)
    with ProgressArtifact(plan.config.name) as progress, listening(progress):
        receipts = detect.detect_chunks(plan, detector, executor, store, lease, stop_asked)
    get_run_logger().info("%d chunks computed, %d reused", receipts.computed, receipts.reused)
    return receipts
