"""Batch detection: from a configuration to a published result."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval, Schedule
from siftline.errors import ConfigError
from siftline.flows.run.api_retries import PatientTaskRunner
from siftline.flows.run.batch import already_published, process_batch
from siftline.flows.run.frames import takes_frames
from siftline.flows.run.intervals import interval_of
from siftline.flows.run.lifecycle import due_time, emit_recoverable, failed_for_good, run_of
from siftline.pipelines.assignment import assignment_of
from siftline.pipelines.steps import STANDARD_STEPS, Step
from siftline.tasks.adapters.result_json import RESULT_JSON
from siftline.tasks.plan_batch import plan_batch
from siftline.types import BatchResult


def _name() -> str:
    """Name the run by the pipeline, and by its interval or its scheduled start."""
    try:
        assignment = assignment_of(flow_run.parameters)
    except ConfigError:  # which ends the run
        return f"batch-detection {due_time():%Y-%m-%d %H:%M:%S}"
    interval = assignment.due(due_time())
    return f"{assignment.config.name} {interval.label if interval else f'{due_time():%Y-%m-%d %H:%M:%S}'}"


@takes_frames
@flow(
    name="batch-detection",
    flow_run_name=_name,
    task_runner=PatientTaskRunner(),
    validate_parameters=False,  # a mistake is one line, and starts no recovery
    persist_result=True,
    result_serializer=RESULT_JSON,
    on_failure=[emit_recoverable],
)
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
        config: The batch: its rows, the detector, and the place of the result.
        fresh: Start over, even if it is published already or an earlier run left work to resume.
        interval: The interval that this run is about. Default: the last one that has ended.
        parameters: Values for `{{ parameters.… }}` in the batch.
        steps: The steps, in order: the standard ones, whose settings are in `config`, and functions of
            your own.
        schedules: The schedules whose intervals the runs are about. They start no runs: the deployment's
            own do.
    """
    given = {"config": config, "steps": steps, "parameters": parameters}
    try:
        assignment = assignment_of({**given, "schedules": schedules, "interval": interval})
    except ConfigError as error:
        return failed_for_good(error)
    with run_of(assignment) as run:
        with interval_of(run, due_time(), again=fresh) as turn:
            result = turn.published
            if result is None:
                plan = run.retried(plan_batch)(turn.batch, fresh, run.lease)
                result = turn.publish(already_published(plan, run) or process_batch(run.begin(plan), run))
        run.complete(result, turn.job_of(result))
    return run.outcome
