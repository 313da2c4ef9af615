"""The step that takes the input's snapshot and cuts it into chunks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from siftline.batch_plan import BatchPlan
from siftline.config.batch import BatchConfig
from siftline.engine import prepare_executor
from siftline.stages import plan
from siftline.storage.lease import Lease
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.main_module import spare_children
from siftline.tasks.adapters.retrying import RETRIES


@task(
    name="plan_batch",
    task_run_name="plan_batch",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def plan_batch(config: BatchConfig, fresh: bool, lease: Lease, batch_divisor: int = 1) -> BatchPlan:
    """Plan the job while the workers' imports begin; see `siftline.stages.plan.plan_batch`."""
    tag_task("batch_processing")
    spare_children()
    prepare_executor(config.cluster, config.source.path)
    return plan.plan_batch(config, fresh, lease, batch_divisor)
