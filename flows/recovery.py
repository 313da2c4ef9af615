"""Recovery: a failed or crashed job is resumed, a limited number of times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from siftline.batch_plan import BatchPlan
from siftline.errors import ConfigError, GivenUp, SiftlineError
from siftline.flows.run.announcements import announce_once
from siftline.flows.run.api_retries import PatientTaskRunner
from siftline.flows.run.batch import SAFER_DIVISOR, already_published, process_batch
from siftline.flows.run.intervals import interval_of
from siftline.flows.run.lifecycle import emit_recoverable, failed_for_good, run_of
from siftline.flows.run.resumed_steps import with_steps_of_server
from siftline.jobs.checkpoint import Checkpoint
from siftline.jobs.plans import planned_config, read_plan
from siftline.jobs.record import find_job, read_job, write_job
from siftline.notices.messages import recovering_message, resume_command
from siftline.pipelines.assignment import Assignment, assignment_of, kept_assignment
from siftline.tasks.adapters.checkpoints import open_checkpoints
from siftline.tasks.adapters.result_json import RESULT_JSON
from siftline.tasks.notify import this_run
from siftline.tasks.plan_batch import plan_batch
from siftline.types import BatchResult


def _name() -> str:
    """Name the run by the job or the run that it recovers."""
    given = flow_run.parameters
    return f"recovery of {given.get('job_id') or given.get('flow_run_id')}"


@flow(
    name="recovery",
    flow_run_name=_name,
    task_runner=PatientTaskRunner(),
    persist_result=True,
    result_serializer=RESULT_JSON,
    on_failure=[emit_recoverable],
)
def recovery(
    flow_run_id: UUID | None = None,
    job_id: str | None = None,
    checkpoint: str = ".siftline",
    max_recoveries: int | None = 3,
    safer: bool = True,
) -> BatchResult:
    """Resume a failed or crashed job: only the chunks that are left are scored.

    Args:
        flow_run_id: The run that failed: of batch-detection, or of recovery itself.
        job_id: Instead: the job, by a unique prefix of its id.
        checkpoint: Directory of the jobs; only needed with job_id.
        max_recoveries: Recoveries of a job before it has failed for good; none: they are not counted,
            and their start is not announced.
        safer: Take less memory: one chunk at a time for each worker, and each chunk in quarters.
    """
    try:
        failed = _planned(checkpoint, job_id) if job_id is not None else _run_before(flow_run_id)
    except SiftlineError as error:
        return failed_for_good(error)
    with run_of(failed.assignment) as run:
        with interval_of(run, failed.due, again=failed.fresh) as turn:
            result = turn.published
            if result is None:
                _refuse_endless(failed, max_recoveries)
                divisor = SAFER_DIVISOR if safer else 1
                plan = run.retried(plan_batch)(turn.batch, False, run.lease, divisor)
                result = already_published(plan, run)
                if result is None:
                    if not run.lease.again:  # it comes back from the queue of a pool, or from a suspension
                        _count_recovery(plan, max_recoveries)
                    result = process_batch(run.begin(plan), run, safer=safer)
                result = turn.publish(result)
        run.complete(result, turn.job_of(result))
    return run.outcome


@flow(
    name="partial-publication",
    task_runner=PatientTaskRunner(),
    persist_result=True,
    result_serializer=RESULT_JSON,
    on_failure=[emit_recoverable],
)
def partial_publication(job_id: str, checkpoint: str = ".siftline") -> BatchResult:
    """Publish the finished chunks of a failed job; the manifest lists the missing ones.

    Args:
        job_id: The job, by a unique prefix of its id.
        checkpoint: Directory of the jobs.
    """
    try:
        directory = find_job(checkpoint, job_id)
        config = kept_assignment(planned_config(directory), directory).announced
    except SiftlineError as error:
        return failed_for_good(error)
    with run_of(Assignment(config=config)) as run:
        plan = plan_batch(config, False, run.lease)
        result = already_published(plan, run) or process_batch(plan, run, partial=True)
        run.complete(result, plan.directory)
    return run.outcome


def committed_chunks(plan: BatchPlan) -> int:
    """Count the chunks of a job that have a receipt, without checking their files."""
    return Checkpoint(plan, open_checkpoints(plan)).committed()


@dataclass(frozen=True)
class _Failed:
    """A failed assignment, its scheduled start, the recoveries so far, and true if it started over."""

    assignment: Assignment
    due: datetime
    recoveries: int = 0
    fresh: bool = False


def _planned(checkpoint: str, job_id: str) -> _Failed:
    directory = find_job(checkpoint, job_id)
    assignment = with_steps_of_server(kept_assignment(planned_config(directory), directory), directory)
    return _Failed(assignment, datetime.now(UTC), fresh=read_plan(directory).fresh)


def _run_before(flow_run_id: UUID | None) -> _Failed:
    """Find the assignment of a run; of a failed recovery, that of the run it recovered."""
    given: dict[str, Any] = {"flow_run_id": flow_run_id}
    runs = 0
    with get_client(sync_client=True) as client:
        while "config" not in given:
            if given.get("job_id") is not None:
                failed = _planned(given.get("checkpoint", ".siftline"), given["job_id"])
                return replace(failed, recoveries=runs)
            if given.get("flow_run_id") is None:
                raise ConfigError("recovery: neither flow_run_id nor job_id is given", "give one of them")
            try:
                run = client.read_flow_run(UUID(str(given["flow_run_id"])))
            except ObjectNotFound as error:
                problem = f"flow_run_id {given['flow_run_id']}: no such run on this server"
                raise ConfigError(problem, "correct it, or give job_id") from error
            given = run.parameters
            runs += 1
    due = run.expected_start_time or datetime.now(UTC)
    return _Failed(assignment_of(given), due, runs - 1, fresh=bool(given.get("fresh")))


def _refuse_endless(failed: _Failed, most: int | None) -> None:
    """Give up after too many recoveries in a row: one may fail before its job can count it."""
    if most is not None and failed.recoveries > most:
        problem = f"{failed.recoveries} recoveries in a row did not help"
        raise GivenUp(problem, "fix the cause, then run it again")


def _count_recovery(plan: BatchPlan, most: int | None) -> None:
    """Count the recovery with the job, and announce it."""
    if most is None:
        return
    record = read_job(plan.directory)
    if record.recoveries >= most:
        problem = f"job {plan.job_id} failed, and {record.recoveries} recoveries did not help: {record.error}"
        raise GivenUp(problem, f"fix the cause, then: {resume_command(plan.directory)}")
    number = record.recoveries + 1
    write_job(plan.directory, record.model_copy(update={"recoveries": number}))
    left = len(plan.chunks) - committed_chunks(plan)
    message = recovering_message(this_run(plan.config.name), plan.directory, number, most, left)
    announce_once(message, plan.config, plan.directory)
