"""Batch detection: the pipeline from a configuration to a published result."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.assignment import Begin, carry_out, due_time, of_a_schedule
from flows.patience import PatientTaskRunner
from flows.pipeline import run_pipeline
from siftline.config import BatchConfig
from siftline.lease import Lease
from siftline.pipelines import STANDARD_STEPS, Assignment, Step, assignment_of
from siftline.schedules import Interval, Schedule
from siftline.types import BatchResult


def _name() -> str:
    """Name the run by the pipeline, and by its interval or the time at which it was due."""
    assignment = assignment_of(flow_run.parameters)
    interval = assignment.due(due_time())
    return f"{assignment.config.name} {interval.label if interval else f'{due_time():%Y-%m-%d %H:%M:%S}'}"


@flow(name="batch-detection", flow_run_name=_name, persist_result=False, task_runner=PatientTaskRunner())
def batch_detection(
    config: BatchConfig,
    fresh: bool = False,
    steps: tuple[Step, ...] = STANDARD_STEPS,
    parameters: dict[str, Any] | None = None,
    schedules: tuple[Schedule, ...] = (),
    interval: Interval | None = None,
) -> BatchResult:
    """Find the anomalies of a batch.

    Args:
        config: The batch: the rows to look at, what finds the anomalies, and where the result goes.
        fresh: Start over, even if it is published already, or an earlier run has left work to take up.
        steps: What is done, in order: the standard steps, and functions of your own.
        parameters: Values for {{ parameters.… }} in the batch.
        schedules: Whose intervals the runs are about.
        interval: What this run is about. Default: the last interval that is over.
    """
    assignment = Assignment(
        config=config, steps=steps, parameters=parameters, schedules=schedules, interval=interval
    )

    def work(batch: BatchConfig, lease: Lease, begin: Begin) -> BatchResult:
        retries = assignment.retries_of("result_validation")
        return run_pipeline(batch, lease, fresh=fresh, begin=begin, validation_retries=retries)

    return carry_out(assignment, due_time(), work, scheduled=of_a_schedule(), again=fresh)
