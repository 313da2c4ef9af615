"""Recovery: a job that failed or crashed is taken up again, a limited number of times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.conclusion import conclude, failed_for_good, tell
from flows.patience import PatientTaskRunner
from flows.pipeline import run_pipeline
from siftline.checkpoint import Checkpoint
from siftline.config import BatchConfig
from siftline.errors import ConfigError, GivenUp, SiftlineError, UnknownJob
from siftline.jobs import JobStatus, find_job, job_directories, job_status, read_job, write_job
from siftline.lease import Lease
from siftline.loading import parse_config, resolve_config
from siftline.messages import recovering_message, resume_command
from siftline.plan import planned_config, read_plan
from siftline.types import BatchPlan, BatchResult
from tasks.checkpoints import open_checkpoints
from tasks.notify import this_run


@flow(name="recovery", persist_result=False, task_runner=PatientTaskRunner())
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
        config, before = (_planned(checkpoint, job_id), 0) if job_id is not None else _configured(flow_run_id)
    except SiftlineError as error:
        return failed_for_good(error)

    def work(lease: Lease) -> BatchResult:
        if max_recoveries is None:
            return run_pipeline(config, lease, safer=safer)
        if before > max_recoveries:
            # The job counts its recoveries itself; but one may fail before it gets that far.
            raise GivenUp(f"{before} recoveries in a row did not help", "see to the cause, then run it again")
        return run_pipeline(config, lease, safer=safer, begin=lambda plan: _begin(plan, max_recoveries))

    return conclude(config, work)


@flow(name="partial-publication", persist_result=False, task_runner=PatientTaskRunner())
def partial_publication(job_id: str, checkpoint: str = ".siftline") -> BatchResult:
    """Publish what is done of a job that failed; the manifest says what is missing.

    Args:
        job_id: The job. The beginning of its id is enough.
        checkpoint: Where the job is.
    """
    try:
        config = _planned(checkpoint, job_id)
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


def _planned(checkpoint: str, job_id: str) -> BatchConfig:
    return planned_config(find_job(checkpoint, job_id))


def _configured(flow_run_id: UUID | None) -> tuple[BatchConfig, int]:
    """Return the configuration of a run, with its templates filled in as they were for it.

    And how many recoveries there were between that run and this one.
    """
    parameters: dict[str, Any] = {"flow_run_id": flow_run_id}
    runs = 0
    with get_client(sync_client=True) as client:
        while "config" not in parameters:
            if parameters.get("job_id") is not None:
                return _planned(parameters.get("checkpoint", ".siftline"), parameters["job_id"]), runs
            if parameters.get("flow_run_id") is None:
                raise ConfigError("recovery: neither flow_run_id nor job_id is given", "give one of them")
            try:
                run = client.read_flow_run(UUID(str(parameters["flow_run_id"])))
            except ObjectNotFound as error:
                raise ConfigError(
                    f"flow_run_id {parameters['flow_run_id']}: no such run on this server",
                    "correct it, or give job_id",
                ) from error
            # Of a recovery that failed, what it was to recover.
            parameters = run.parameters
            runs += 1
    now = run.expected_start_time or datetime.now(UTC)
    return resolve_config(parse_config(parameters["config"]), now), runs - 1


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
