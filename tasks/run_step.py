"""A step of the user's own."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from siftline.errors import StepFailed
from siftline.pipelines.steps import Step, import_step
from siftline.shown import log_line
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.retrying import retried
from siftline.types import BatchResult


def run_step(step: Step, result: BatchResult) -> None:
    """Call a step's function with the result, as a task of its name; its last failure is a StepFailed."""
    try:
        call = _call.with_options(name=step.uses, task_run_name=step.uses)
        resolve(retried(call, step.retries)(step, result))
    except Exception as error:
        problem = f"step {step.uses}: {type(error).__name__}: {error}"
        if step.on_failure == "warn":
            get_run_logger().warning("%s; the run goes on", log_line(problem))
            return
        remedy = f"fix it, then run again: {result.output} is published, and only the steps are left"
        raise StepFailed(problem, remedy) from error


@task(name="step", cache_policy=NO_CACHE, persist_result=False)
def _call(step: Step, result: BatchResult) -> Any:
    return import_step(step)(result, **step.settings)
