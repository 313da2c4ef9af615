"""The step that looks at the input and cuts it."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from siftline.config.batch import BatchConfig
from siftline.stages import plan
from siftline.storage.lease import Lease
from siftline.types import BatchPlan


@task(name="plan_batch", task_run_name="plan_batch", cache_policy=NO_CACHE, persist_result=False)
def plan_batch(config: BatchConfig, fresh: bool, lease: Lease, blocks: int) -> BatchPlan:
    """Plan the job; see `siftline.stages.plan.plan_batch`."""
    return plan.plan_batch(config, fresh, lease, blocks)
