"""Recovery: a job that failed or crashed is taken up again, a limited number of times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.run.api_retries import PatientTaskRunner
from flows.run.assignment import Begin, carry_out
from flows.run.conclusion import conclude, failed_for_good, tell
from flows.run.pipeline import run_pipeline
from siftline.config.batch import BatchConfig
from siftline.errors import ConfigError, GivenUp, SiftlineError, UnknownJob
from siftline.jobs.checkpoint import Checkpoint
from siftline.jobs.status import JobStatus, find_job, job_directories, job_status, read_job, write_job
from siftline.notices.messages import recovering_message, resume_command
from siftline.pipelines.assignment import Assignment, assignment_of, kept_assignment
from siftline.stages.plan import planned_config, read_plan
from siftline.storage.lease import Lease
from siftline.types import BatchPlan, BatchResult
from tasks.adapters.checkpoints import open_checkpoints
from tasks.notify import this_run


def _name() -> str:
    """Name the run by what is taken up again."""
    given = flow_run.parameters
    return f"recovery of {given.get('job_id') or given.get('flow_run_id')}"


@flow(name="recovery", flow_run_name=_name, persist_result=False, task_runner=PatientTaskRunner())
def recovery(
    flow_run_id: UUID | None = None,
    job_id: str | None = None,
    checkpoint: str = ".siftline",
    max_recoveries: int | None = 3,
    safer: bool = True,
) -> BatchResult:
    """Take a failed or crashed job up again: only what is left of it is done.

    Args:
        flow_run_id: The run that failed: of batch-detection, or of recovery itself.
        job_id: Instead: the job. The beginning of its id is enough.
        checkpoint: Where the job is; only needed with job_id.
        max_recoveries: How many recoveries a job gets before it has failed for good; none: they are not
            counted, and nobody is told that one has begun.
        safer: Take less memory: one chunk at a time for each worker, and each chunk in quarters.
    """
    try:
        failed = _planned(checkpoint, job_id) if job_id is not None else _run_before(flow_run_id)
    except SiftlineError as error:
        return failed_for_good(error)

    def work(batch: BatchConfig, lease: Lease, begin: Begin) -> BatchResult:
        retries = failed.assignment.retries_of("result_validation")
        if max_recoveries is not None and failed.recoveries > max_recoveries:
            # The job counts its recoveries itself; but one may fail before it gets that far.
            raise GivenUp(
                f"{failed.recoveries} recoveries in a row did not help",
                "see to the cause, then run it again",
            )

        def begin_recovery(plan: BatchPlan) -> None:
            if max_recoveries is not None:
                _begin(plan, max_recoveries)
            begin(plan)

        return run_pipeline(batch, lease, safer=safer, begin=begin_recovery, validation_retries=retries)

    return carry_out(failed.assignment, failed.due, work, again=failed.fresh)


@flow(name="partial-publication", persist_result=False, task_runner=PatientTaskRunner())
def partial_publication(job_id: str, checkpoint: str = ".siftline") -> BatchResult:
    """Publish what is done of a job that failed; the manifest says what is missing.

    Args:
        job_id: The job. The beginning of its id is enough.
        checkpoint: Where the job is.
    """
    try:
        config = _planned(checkpoint, job_id).assignment.told
    except SiftlineError as error:
        return failed_for_good(error)
    return conclude(config, lambda lease: run_pipeline(config, lease, partial=True))


def job_statuses(checkpoint: str) -> list[JobStatus]:
    """Return the status of every job in a checkpoint, the one that was planned last at the end."""
    statuses = []
    for directory in job_directories(checkpoint):
        try:
            plan = read_plan(directory)
        except UnknownJob:  # of another version: it can be run again, or removed
            statuses.append(job_status(directory, "unreadable", 0, 0))
            continue
        done = Checkpoint(plan, open_checkpoints(plan)).committed()
        statuses.append(job_status(directory, plan.config.name, len(plan.chunks), done))
    return statuses


@dataclass(frozen=True)
class _Failed:
    """What failed, when it was due, after how many recoveries, and whether it was to start over."""

    assignment: Assignment
    due: datetime
    recoveries: int = 0
    fresh: bool = False


def _planned(checkpoint: str, job_id: str) -> _Failed:
    directory = find_job(checkpoint, job_id)
    assignment = kept_assignment(planned_config(directory), directory)
    return _Failed(assignment, datetime.now(UTC), fresh=read_plan(directory).fresh)


def _run_before(flow_run_id: UUID | None) -> _Failed:
    """Find out what a run was to do; of a recovery that failed, what that was to recover."""
    parameters: dict[str, Any] = {"flow_run_id": flow_run_id}
    runs = 0
    with get_client(sync_client=True) as client:
        while "config" not in parameters:
            if parameters.get("job_id") is not None:
                failed = _planned(parameters.get("checkpoint", ".siftline"), parameters["job_id"])
                return replace(failed, recoveries=runs)
            if parameters.get("flow_run_id") is None:
                raise ConfigError("recovery: neither flow_run_id nor job_id is given", "give one of them")
            try:
                run = client.read_flow_run(UUID(str(parameters["flow_run_id"])))
            except ObjectNotFound as error:
                raise ConfigError(
                    f"flow_run_id {parameters['flow_run_id']}: no such run on this server",
                    "correct it, or give job_id",
                ) from error
            parameters = run.parameters
            runs += 1
    return _Failed(
        assignment_of(parameters),
        run.expected_start_time or datetime.now(UTC),
        runs - 1,
        fresh=bool(parameters.get("fresh")),
    )


def _begin(plan: BatchPlan, most: int) -> None:
    """Count the recovery, and tell of it."""
    record = read_job(plan.directory)
    if record.recoveries >= most:
        raise GivenUp(
            f"job {plan.job_id} failed, and {record.recoveries} recoveries did not help: {record.error}",
            f"see to the cause, then: {resume_command(plan.directory)}",
        )
    number = record.recoveries + 1
    write_job(plan.directory, record.model_copy(update={"recoveries": number}))
    left = len(plan.chunks) - Checkpoint(plan, open_checkpoints(plan)).committed()
    message = recovering_message(this_run(plan.config.name), plan.directory, number, most, left)
    tell(message, plan.config, plan.directory)
