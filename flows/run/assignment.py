"""What a run is to do, done: its interval, the batch, and the steps of the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.run.conclusion import conclude
from flows.run.schedule_missed import make_up
from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval, Schedule, reason_to_skip
from siftline.errors import Cancelled, IntervalSkipped, JobBusy, LeaseLost, SiftlineError, StorageError
from siftline.jobs.intervals import Ledger
from siftline.jobs.status import read_job, write_job
from siftline.pipelines.assignment import Assignment, keep_assignment
from siftline.pipelines.steps import Step
from siftline.storage.lease import Lease
from siftline.types import BatchPlan, BatchResult
from tasks.run_step import run_step

Begin = Callable[[BatchPlan], None]
Work = Callable[[BatchConfig, Lease, Begin], BatchResult]
_Named = tuple[str, Step]


def carry_out(
    assignment: Assignment, when: datetime, work: Work, *, scheduled: bool = False, again: bool = False
) -> BatchResult:
    """Do what a run is to do, and end the run in its true state.

    Parameters
    ----------
    assignment : Assignment
        What is to be done.
    when : datetime
        When the run was due.
    work : callable
        Given the batch, the lease to take its job with, and whom to tell of the plan before anything is
        done, does it.
    scheduled : bool
        Whether a schedule started the run: then it may have come too late.
    again : bool
        Whether to do what is published already.
    """
    before, after = _named_steps(assignment)

    interval = assignment.due(when)

    def do(lease: Lease) -> BatchResult:
        batch = assignment.batch(when, interval)

        def begin(plan: BatchPlan) -> None:
            keep_assignment(assignment.model_copy(update={"interval": interval}), plan.directory)

        def publish() -> BatchResult:
            result = work(batch, lease, begin).model_copy(update={"interval": interval})
            if result.state != "AlreadyPublished":
                _forget_steps(_job(batch, result))
            return result

        if interval is None:
            return _with_steps(before, publish(), batch)
        ledger = Ledger(batch.checkpoint.path, batch.name)
        schedule = assignment.schedule(when)
        if scheduled and schedule is not None and ledger.published(interval) is None:
            _keep_time(schedule, ledger, interval)
        with Lease(_run()) as turn:
            _take(turn, ledger, interval)
            done = None if again else ledger.published(interval)
            if done is None:
                result = _recorded(ledger, interval, publish)
            else:
                result = _already(done, _job(batch, done), lease)
            return _with_steps(before, result, batch)

    def afterwards(result: BatchResult) -> None:
        _with_steps(after, result, assignment.batch(when, interval))

    return conclude(assignment.told, do, afterwards, interval)


def due_time() -> datetime:
    """When the present run was due."""
    return flow_run.scheduled_start_time or datetime.now(UTC)


def of_a_schedule() -> bool:
    """Whether a schedule started the present run."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.auto_scheduled)


def _run() -> str:
    return str(flow_run.id or "a run without a server")


def _keep_time(schedule: Schedule, ledger: Ledger, interval: Interval) -> None:
    """Skip the interval if it is too late for it; otherwise see to those that were missed."""
    reason = reason_to_skip(schedule, interval, datetime.now(UTC))
    if reason is not None:
        ledger.write(interval, "skipped", _run(), reason)
        raise IntervalSkipped(
            f"interval {interval.label} is skipped: {reason}",
            "`siftline backfill` makes up for it all the same",
        )
    if schedule.catch_up == "all":
        make_up(schedule, ledger, interval)


def _take(turn: Lease, ledger: Ledger, interval: Interval) -> None:
    try:
        turn.take(ledger.directory(interval))
    except JobBusy as error:
        raise error.about(f"interval {interval.label}") from None


def _recorded(ledger: Ledger, interval: Interval, publish: Callable[[], BatchResult]) -> BatchResult:
    """Publish the result of an interval, and write down what became of it."""
    try:
        result = publish()
    except (JobBusy, LeaseLost, Cancelled):
        raise
    except SiftlineError as error:
        with suppress(StorageError):  # the error says more
            ledger.write(interval, "failed", _run(), str(error))
        raise
    ledger.write(interval, "published", _run(), result=result)
    return result


def _already(done: BatchResult, job: Path, lease: Lease) -> BatchResult:
    """Take the job up where the run that published it left it: perhaps before people were told."""
    if job.is_dir():
        lease.take(job)
    return done.model_copy(update={"state": "AlreadyPublished", "chunks_computed": 0})


def _named_steps(assignment: Assignment) -> tuple[list[_Named], list[_Named]]:
    """Return the user's steps before the notification and after it, each with a name of its own."""
    before, after = (assignment.own_steps(notified=told) for told in (False, True))
    count: Counter[str] = Counter()
    named = []
    for step in (*before, *after):
        count[step.uses] += 1
        number = f" {count[step.uses]}" if count[step.uses] > 1 else ""
        named.append((f"{assignment.config.name}: {step.uses}{number}", step))
    return named[: len(before)], named[len(before) :]


def _with_steps(steps: list[_Named], result: BatchResult, batch: BatchConfig) -> BatchResult:
    """Run those of the user's steps that are not done with what is published."""
    job = _job(batch, result)
    for name, step in steps:
        done = read_job(job).steps
        if name in done:
            get_run_logger().info("step %s is done already", step.uses)
            continue
        if result.state == "AlreadyPublished":  # an earlier run did not get beyond this step
            result = result.model_copy(
                update={"state": "CompletedWithRejects" if result.rows_failed else "Completed"}
            )
        run_step(step, result)
        record = read_job(job)
        write_job(job, record.model_copy(update={"steps": (*record.steps, name)}))
    return result


def _forget_steps(job: Path) -> None:
    record = read_job(job)
    if record.steps:
        write_job(job, record.model_copy(update={"steps": ()}))


def _job(batch: BatchConfig, result: BatchResult) -> Path:
    return Path(batch.checkpoint.path).absolute() / "jobs" / result.job_id
