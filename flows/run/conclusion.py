"""How a run ends: in its true state, recorded with the job, and told to whom it may concern."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from prefect import State, get_run_logger
from prefect._internal.control_listener import get_intent  # nothing public says why a run is ended
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled as CancelledState
from prefect.states import Completed, Failed

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval
from siftline.errors import (
    Cancelled,
    IntervalSkipped,
    JobBusy,
    LeaseLost,
    SiftlineError,
    StepFailed,
    StorageError,
)
from siftline.jobs.history import previous_rates
from siftline.jobs.status import JobRecord, Outcome, concluded, read_job, write_job
from siftline.notices.messages import Message, completed_message, failed_message
from siftline.notices.top_rows import top_of
from siftline.storage.lease import Lease
from siftline.types import BatchResult
from tasks.adapters.crashed_runs import end_predecessor
from tasks.adapters.incidents import incidents_logged
from tasks.notify import notify, this_run
from tasks.publish_results import report_page

# What a failed run is called that is not to be taken up again; see deployments/automations.yaml.
_FOR_GOOD = "FailedForGood"
# Rows that a message names.
_TOP = 3
_ANOTHER_RUN = {JobBusy: "AlreadyRunning", LeaseLost: "Superseded"}


def conclude(
    config: BatchConfig,
    work: Callable[[Lease], BatchResult],
    afterwards: Callable[[BatchResult], None] = lambda result: None,
    interval: Interval | None = None,
) -> BatchResult:
    """Do the work of a run, which takes its job with the lease that it is given, and end it.

    What is to be done afterwards, when people are told, can still fail it.

    Returns
    -------
    BatchResult
        To who calls the flow; the flow itself is given a state, where a plain one would not be the truth.

    Raises
    ------
    SiftlineError
        When the work failed, and another run may do better.
    """
    with Lease(str(flow_run.id or "a run without a server")) as lease, incidents_logged():
        try:
            result = work(lease)
        except (Cancelled, KeyboardInterrupt, TerminationSignal) as error:
            return _as_result(_superseded(lease) or _cancelled(error, lease))
        except (JobBusy, LeaseLost) as error:
            return _as_result(_because_of_another(error))
        except IntervalSkipped as error:
            return _as_result(CancelledState(message=str(error), name="Skipped"))
        except Exception as error:
            superseded = _superseded(lease)
            if superseded is not None:
                return _as_result(superseded)
            if _comes_of_a_signal(error):
                return _as_result(_cancelled(error, lease))
            for_good = isinstance(error, SiftlineError) and not error.recoverable
            _failed(config, error, lease, for_good, interval)
            if not for_good:
                raise
            return failed_for_good(error)
        recovered = _had_failed(lease)
        _end_predecessors(lease)
        conclusion = _completed(config, result, lease, recovered)
        try:
            afterwards(result)
        except StepFailed as error:
            _failed(config, error, lease, True, interval)
            return failed_for_good(error)
        return conclusion


def failed_for_good(error: Exception) -> BatchResult:
    """End a run that is not to be taken up again."""
    return _as_result(Failed(message=str(error), data=error, name=_FOR_GOOD))


def _comes_of_a_signal(error: BaseException) -> bool:
    """Whether somebody, as pydantic does, made an error of their own of what a signal's handler raised."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (KeyboardInterrupt, TerminationSignal)):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _because_of_another(error: JobBusy | LeaseLost) -> State:
    return Failed(message=str(error), data=error, name=_ANOTHER_RUN[type(error)])


def _superseded(lease: Lease) -> State | None:
    """What has come to an end of a run that was replaced meanwhile, is not for it to say."""
    try:
        lease.check()
    except LeaseLost as error:
        return _because_of_another(error)
    except StorageError:
        return None  # what failed the run says more
    return None


def _as_result(state: State) -> BatchResult:
    # Calling a flow that returns a state gives the state's data, or raises it.
    return cast(BatchResult, state)


def _had_failed(lease: Lease) -> bool:
    """Whether a run of the job failed or died since it was last published."""
    job = lease.directory
    return lease.previous is not None or (job is not None and read_job(job).had_failed)


def _completed(config: BatchConfig, result: BatchResult, lease: Lease, recovered: bool) -> BatchResult:
    job = lease.directory
    if result.state == "AlreadyPublished":
        get_run_logger().info("job %s is published already: nothing to do", result.job_id)
        before = read_job(job).outcome if job is not None else "published"
        if job is not None and before != "published":
            _record(job, "published")
        if before == "interrupted":
            _tell_completed(config, result, job, recovered)  # the run that published it did not get to say so
        return _as_result(
            Completed(message="Published already: nothing to do.", data=result, name=result.state)
        )
    whole = result.state != "Partial"
    if job is not None and whole:
        _record(job, "published")
    _tell_completed(config, result, job, recovered and whole)
    if result.state == "Completed":
        return result
    text = f"{result.rows_failed} of {result.rows} rows have no score."
    return _as_result(Completed(message=text, data=result, name=result.state))


def _tell_completed(config: BatchConfig, result: BatchResult, job: Path | None, recovered: bool) -> None:
    checkpoint = _checkpoint(config, job)
    previous = previous_rates(checkpoint, config.name, result.job_id) if checkpoint is not None else ()
    run = replace(this_run(config.name, result.interval), report_url=report_page())
    message = completed_message(run, result, previous, top_of(result, _TOP), recovered)
    notify(message, config.notify, checkpoint)


def _cancelled(error: BaseException, lease: Lease) -> State:
    """End a run that was asked to stop. When Prefect asked, it says itself what becomes of the run."""
    if lease.directory is not None:
        _record(lease.directory, "cancelled")
        _end_predecessors(lease)
    if get_intent() is not None:
        if isinstance(error, TerminationSignal):
            raise error
        raise TerminationSignal(signal.SIGTERM) from error
    return CancelledState(message="Stopped on request; finished chunks are kept.")


def _failed(
    config: BatchConfig, error: Exception, lease: Lease, for_good: bool, interval: Interval | None
) -> None:
    job = lease.directory
    tell(failed_message(this_run(config.name, interval), error, job, for_good), config, job)
    if job is not None:
        _record(job, "failed for good" if for_good else "failed", str(error))
        _end_predecessors(lease)


def _end_predecessors(lease: Lease) -> None:
    """Of several runs that died one after the other, none may stay Running for ever."""
    while lease.previous is not None:
        end_predecessor(lease)
        lease.forget_previous()


def tell(message: Message, config: BatchConfig, job: Path | None) -> None:
    """Notify, but of each cause only once for a job, however many runs fail for it."""
    record = read_job(job) if job is not None else None
    cause = f"{message.event}: {message.cause}"
    if record is not None and job is not None:
        if cause in record.told:
            return
        _save(job, record.model_copy(update={"told": (*record.told, cause)}))
    notify(message, config.notify, _checkpoint(config, job))


def _checkpoint(config: BatchConfig, job: Path | None) -> Path | None:
    """Return where the jobs are; None, where that is not known because the templates are not filled in."""
    if job is not None:
        return job.parent.parent
    return None if "{{" in config.checkpoint.path else Path(config.checkpoint.path).absolute()


def _record(job: Path, outcome: Outcome, error: str | None = None) -> None:
    run = str(flow_run.id) if flow_run.id else None
    _save(job, concluded(read_job(job), outcome, run, error))


def _save(job: Path, record: JobRecord) -> None:
    """Write what became of a job; where the disk is full, that must not change what became of it."""
    try:
        write_job(job, record)
    except StorageError as error:
        get_run_logger().warning("what became of the job could not be recorded: %s", error)
