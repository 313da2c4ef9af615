"""The step that makes one result of all chunks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from siftline.batch_plan import BatchPlan
from siftline.engine import Executor
from siftline.stages import combine
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.suspension import stop_asked
from siftline.types import CombinedScores, DetectorRef, Receipts


@task(name="combine_results", task_run_name="combine_results", cache_policy=NO_CACHE, persist_result=False)
def combine_results(
    plan: BatchPlan, detector: DetectorRef, receipts: Receipts, executor: Executor
) -> CombinedScores:
    """Find the threshold, label, and stage the result; see `siftline.stages.combine.combine_results`."""
    tag_task("batch_processing", plan.job_id)
    return combine.combine_results(plan, detector, receipts, executor, asked=stop_asked)
