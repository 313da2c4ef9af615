"""Batch detection: the pipeline from a configuration to a published result."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.run.api_retries import PatientTaskRunner
from flows.run.assignment import Begin, carry_out, due_time, of_a_schedule
from flows.run.pipeline import run_pipeline
from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval, Schedule
from siftline.pipelines.assignment import Assignment, assignment_of
from siftline.pipelines.steps import STANDARD_STEPS, Step
from siftline.storage.lease import Lease
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
    interval: Interval | None = None,
    parameters: dict[str, Any] | None = None,
    steps: tuple[Step, ...] = STANDARD_STEPS,
    schedules: tuple[Schedule, ...] = (),
) -> BatchResult:
    """Find the anomalies of a batch.

    Args:
        config: The batch: the rows to look at, what finds the anomalies, and where the result goes.
        fresh: Start over, even if it is published already, or an earlier run has left work to take up.
        interval: The stretch of time that this run is about. Default: the last one that is over.
        parameters: Values for `{{ parameters.… }}` in the batch.
        steps: What is done, in order: the standard steps, whose settings are in `config`, and functions of
            your own.
        schedules: Whose intervals the runs are about. They start no runs: the deployment's own do.
    """
    assignment = Assignment(
        config=config, steps=steps, parameters=parameters, schedules=schedules, interval=interval
    )

    def work(batch: BatchConfig, lease: Lease, begin: Begin) -> BatchResult:
        retries = assignment.retries_of("result_validation")
        return run_pipeline(batch, lease, fresh=fresh, begin=begin, validation_retries=retries)

    return carry_out(assignment, due_time(), work, scheduled=of_a_schedule(), again=fresh)
