"""The step that audits the result before it is published."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from siftline.batch_plan import BatchPlan
from siftline.stages import validate
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.retrying import RETRIES
from siftline.types import CombinedScores, Receipts, ValidationReport


@task(
    name="validate_results",
    task_run_name="validate_results",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def validate_results(
    plan: BatchPlan, receipts: Receipts, combined: CombinedScores, partial: bool
) -> ValidationReport:
    """Audit the staged result; see `siftline.stages.validate.validate_results`."""
    tag_task("result_validation", plan.job_id)
    return validate.validate_results(plan, receipts, combined, partial)
