"""The life of a run: it takes its job, does its work, and ends in its true state."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow, State, Task, get_run_logger
from prefect._internal.control_listener import get_intent  # nothing public says why a run is ended
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import Pause, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed

from siftline.batch_plan import BatchPlan
from siftline.config.schedules import Interval
from siftline.errors import Cancelled, IntervalSkipped, JobBusy, LeaseLost, SiftlineError, StorageError
from siftline.flows.control.slots import claim_of
from siftline.flows.run.admission import SlotsAwaited, submission_ended
from siftline.flows.run.announcements import announce_failure, announce_result
from siftline.flows.run.api_retries import brief_api_requests
from siftline.flows.run.heartbeats import heartbeats
from siftline.flows.run.steps import run_steps
from siftline.jobs.monitor import Monitor
from siftline.jobs.record import Outcome, concluded, read_job, write_job
from siftline.pipelines.assignment import Assignment, keep_assignment
from siftline.progress import Progress, emit
from siftline.shown import one_line, plain_text
from siftline.storage.lease import Lease
from siftline.tasks.adapters.crashed_runs import end_crashed_runs
from siftline.tasks.adapters.labels import emit_run_event, forget_label, label_run
from siftline.tasks.adapters.monitoring import monitored
from siftline.tasks.adapters.present import present_run
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.retrying import retried
from siftline.tasks.adapters.run_log import run_logged
from siftline.tasks.adapters.suspension import suspend_if_asked, suspension_asked
from siftline.types import BatchResult, ResultState, RunLabel

P = ParamSpec("P")
R = TypeVar("R")

# The result or the error of the last run in this context, whether or not the API has its final state.
ENDED: ContextVar[BatchResult | BaseException | None] = ContextVar("siftline_ended", default=None)


@dataclass(frozen=True)
class Ending:
    """An end of a run: state, label, outcome in the job's record, and if a notification is sent."""

    type: StateType
    label: RunLabel | None = None
    outcome: Outcome | None = None
    announced: bool = False


FAILED = Ending(StateType.FAILED, outcome="failed", announced=True)
FAILED_FOR_GOOD = Ending(StateType.FAILED, "for-good", "failed for good", announced=True)
STOPPED = Ending(StateType.CANCELLED, outcome="cancelled")
SUSPENDED = Ending(StateType.PAUSED, "suspended", "suspended")
QUEUED = Ending(StateType.SCHEDULED, outcome="queued")
_ENDINGS: dict[type[BaseException], Ending] = {
    Cancelled: STOPPED,
    KeyboardInterrupt: STOPPED,
    TerminationSignal: STOPPED,
    Pause: SUSPENDED,
    SlotsAwaited: QUEUED,
    JobBusy: Ending(StateType.FAILED, "already-running"),
    LeaseLost: Ending(StateType.FAILED, "superseded"),
    IntervalSkipped: Ending(StateType.CANCELLED, "skipped"),
}
_LABELS: dict[ResultState, RunLabel] = {
    "CompletedWithRejects": "rejects",
    "Partial": "partial",
    "AlreadyPublished": "already-published",
}


def ending_of(error: BaseException) -> Ending:
    """Return how a run ends with an error."""
    for kind, ending in _ENDINGS.items():
        if isinstance(error, kind):
            return ending
    for_good = isinstance(error, SiftlineError) and not error.recoverable
    return FAILED_FOR_GOOD if for_good else FAILED


@dataclass
class Run:
    """A run while it lives; planning takes the job with its open lease."""

    assignment: Assignment
    lease: Lease
    monitor: Monitor
    interval: Interval | None = None
    started: float = field(default_factory=time.monotonic)
    _outcome: BatchResult | State | None = None

    @property
    def outcome(self) -> BatchResult:
        """The return value of the flow: its result, or the state that the flow ends in."""
        # Calling a flow that returns a state gives the state's data, or raises it.
        return cast(BatchResult, self._outcome)

    def retried(self, task: Task[P, R], step: str = "batch_processing") -> Task[P, R]:
        """Return a task with the retries that the pipeline sets for its step."""
        return retried(task, self.assignment.retries_of(step))

    def begin(self, plan: BatchPlan) -> BatchPlan:
        """Keep the assignment with the job, for a recovery."""
        keep_assignment(self.assignment.model_copy(update={"interval": self.interval}), plan.directory)
        return plan

    def complete(self, result: BatchResult, job: Path) -> None:
        """Run the user's steps before the notification, record and notify, then run the steps after it."""
        emit(Progress("notify"))
        result = run_steps(self.assignment, result, job, notified=False)
        record = read_job(self.lease.directory) if self.lease.directory is not None else None
        recovered = self.lease.previous is not None or (record is not None and record.had_failed)
        before = record.outcome if record is not None else "published"
        end_crashed_runs(self.lease)
        again = result.state == "AlreadyPublished"
        if again:
            get_run_logger().info("job %s is published already: nothing to do", result.job_id)
        if result.state != "Partial" and not (again and before == "published"):
            self._record("published")
        # A run that was interrupted after it had published could not notify.
        if not again or before in ("interrupted", "suspended"):
            recovered = recovered and result.state != "Partial"
            with brief_api_requests():
                announce_result(self.assignment.announced, result, self.lease.directory, recovered)
        self._outcome = _completed(result)
        run_steps(self.assignment, result, job, notified=True)
        ENDED.set(result)

    def fail(self, error: BaseException) -> None:
        """End the run with an error, or raise the error for Prefect to end the run with it."""
        error = _reason(error, self.lease)
        ENDED.set(error)
        ending = ending_of(error)
        if ending is STOPPED and get_intent() is None and suspension_asked():
            ending = SUSPENDED
        if ending.announced:
            for_good = ending is FAILED_FOR_GOOD
            announced, job = self.assignment.announced, self.lease.directory
            with brief_api_requests():
                announce_failure(announced, error, job, self.interval, for_good)
        published = self._outcome is not None
        if ending.outcome is not None and not (published and ending in (STOPPED, SUSPENDED)):
            self._record(ending.outcome, str(error) if ending.announced else None)
            end_crashed_runs(self.lease)
        if ending is SUSPENDED:
            label_run("suspended", "Suspended on request; finished chunks are kept.")
            suspend_if_asked()
        if isinstance(error, SlotsAwaited):
            raise Pause(state=error.state)
        if ending is STOPPED and get_intent() is not None:
            # Prefect asked for the end, and decides on the state.
            raise error if isinstance(error, TerminationSignal) else TerminationSignal(signal.SIGTERM)
        if ending is FAILED:
            raise error
        self._outcome = _ended(ending, error)

    def _record(self, outcome: Outcome, error: str | None = None) -> None:
        """Write the outcome into the job's record; a full disk must not change the outcome."""
        job = self.lease.directory
        try:
            if job is not None:
                write_job(job, concluded(read_job(job), outcome, run_id(), error))
        except StorageError as problem:
            get_run_logger().warning("the outcome could not be recorded with the job: %s", problem)


@contextmanager
def run_of(assignment: Assignment) -> Iterator[Run]:
    """Give a run its lease, and end it as its block ends; raise an error that a recovery may help."""
    monitor = Monitor(run_id(), assignment.config.name, due_time())
    with heartbeats(), Lease(run_id()) as lease, run_logged(), monitored(monitor, lease):
        run = Run(assignment, lease, monitor)
        forget_label()
        try:
            with submission_ended():
                yield run
        except (Exception, KeyboardInterrupt, TerminationSignal, Pause) as error:  # noqa: BLE001  `fail` raises it
            run.fail(error)


def emit_recoverable(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Emit `siftline.job.recoverable` for a failure that another run may repair.

    The recovery starts for this event; see flows/control/automations.yaml.
    """
    error = resolve(state.result(raise_on_failure=False))
    if isinstance(error, Exception) and ending_of(error) is FAILED:
        emit_run_event("recoverable", state.message or "", flow, flow_run)


def failed_for_good(error: SiftlineError) -> BatchResult:
    """End a run without a job, beyond the help of a recovery."""
    return cast(BatchResult, _ended(FAILED_FOR_GOOD, error))


def run_id() -> str:
    """Return the id of the present flow run."""
    return str(flow_run.id or "a run without a server")


def due_time() -> datetime:
    """Return the scheduled start of the present run."""
    return flow_run.scheduled_start_time or datetime.now(UTC)


def started_by_schedule() -> bool:
    """Return whether a schedule started the present run, which does not come back from a queue."""
    run = present_run()
    return run is not None and run.auto_scheduled and claim_of(run) is None


def _reason(error: BaseException, lease: Lease) -> BaseException:
    """Find the reason of an end: a lost lease, a signal behind a library's error, or the error itself."""
    if isinstance(error, (JobBusy, LeaseLost, IntervalSkipped)):
        return error
    try:
        lease.check()
    except LeaseLost as lost:
        return lost
    except StorageError:
        pass  # the error says more
    # Pydantic, for one, turns what a signal's handler raises into errors of its own.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (KeyboardInterrupt, TerminationSignal)):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _completed(result: BatchResult) -> BatchResult | State:
    label = _LABELS.get(result.state)
    if label is None:
        return result
    missing = f"{result.rows_failed} of {result.rows} rows have no score."
    message = "Published already: nothing to do." if label == "already-published" else missing
    label_run(label, message)
    return Completed(message=message, data=result)


def _ended(ending: Ending, error: BaseException) -> State:
    message = "Stopped on request; finished chunks are kept."
    if ending is not STOPPED:
        message = "; ".join(one_line(line.strip()) for line in plain_text(error).splitlines())
    if ending.label is not None:
        label_run(ending.label, message)
    data = None if ending.type == StateType.CANCELLED else error
    return State(type=ending.type, message=message, data=data)
