"""The step that fits the detector."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from siftline.batch_plan import BatchPlan
from siftline.engine import Executor
from siftline.stages import fit
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.suspension import stop_asked
from siftline.types import DetectorRef


@task(name="fit_detector", task_run_name="fit_detector", cache_policy=NO_CACHE, persist_result=False)
def fit_detector(plan: BatchPlan, executor: Executor) -> DetectorRef:
    """Fit the detector; see `siftline.stages.fit.fit_detector`."""
    tag_task("batch_processing", plan.job_id)
    return fit.fit_detector(plan, executor, stop_asked)
