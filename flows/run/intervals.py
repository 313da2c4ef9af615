"""The interval that a run is about: its lease, its place in the ledger, and missed intervals before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval, Schedule, reason_to_skip
from siftline.errors import Cancelled, IntervalSkipped, JobBusy, LeaseLost, SiftlineError, StorageError
from siftline.flows.run.lifecycle import Run, run_id, started_by_schedule
from siftline.flows.run.schedule_missed import schedule_missed
from siftline.flows.run.steps import forget_steps
from siftline.jobs.intervals import Ledger
from siftline.storage.layout import CheckpointFiles
from siftline.storage.lease import Lease
from siftline.tasks.adapters.aside import aside
from siftline.types import BatchResult


@dataclass
class Turn:
    """A run's turn at its interval, if there is a schedule; the templates of its batch are filled in."""

    batch: BatchConfig
    interval: Interval | None
    published: BatchResult | None = None

    def publish(self, result: BatchResult) -> BatchResult:
        """Take the published result of the run."""
        self.published = result.model_copy(update={"interval": self.interval})
        if result.state != "AlreadyPublished":
            forget_steps(self.job_of(result))
        return self.published

    def job_of(self, result: BatchResult) -> Path:
        """Return the directory of a result's job."""
        return CheckpointFiles.at(self.batch.checkpoint.path).job(result.job_id).directory


@contextmanager
def interval_of(run: Run, when: datetime, *, again: bool) -> Iterator[Turn]:
    """Hold the lease of a run's interval, and record in the ledger how the block ends.

    `when` is the scheduled start; `again` ignores an earlier publication. A run that is too late for its
    interval raises IntervalSkipped; one that finds another at work, JobBusy.
    """
    run.interval = interval = run.assignment.due(when)
    turn = Turn(run.assignment.batch(when, interval), interval)
    if interval is None:
        yield turn
        return
    ledger = Ledger(turn.batch.checkpoint.path, turn.batch.name)
    schedule = run.assignment.schedule(when)
    if started_by_schedule() and schedule is not None and ledger.published(interval) is None:
        _keep_time(schedule, ledger, interval)
    with Lease(run_id()) as lease:
        try:
            lease.take(ledger.directory(interval))
        except JobBusy as error:
            raise error.about(f"interval {interval.label}") from None
        done = None if again else ledger.published(interval)
        if done is not None:
            turn.published = _already_published(done, turn.job_of(done), run.lease)
            yield turn
            return
        try:
            yield turn
        except (JobBusy, LeaseLost, Cancelled):
            raise
        except SiftlineError as error:
            with suppress(StorageError):  # the error says more
                ledger.write(interval, "failed", run_id(), str(error))
            raise
        write = partial(ledger.write, interval, "published", run_id(), result=turn.published)
        aside("the interval is not recorded as published", write, None)


def _already_published(done: BatchResult, job: Path, lease: Lease) -> BatchResult:
    """Take the job over from the run that published it, perhaps before it could notify."""
    if job.is_dir():
        lease.take(job)
    return done.model_copy(update={"state": "AlreadyPublished", "chunks_computed": 0})


def _keep_time(schedule: Schedule, ledger: Ledger, interval: Interval) -> None:
    """Skip an overdue interval; otherwise start runs for the missed ones before it."""
    reason = reason_to_skip(schedule, interval, datetime.now(UTC))
    if reason is not None:
        ledger.write(interval, "skipped", run_id(), reason)
        problem = f"interval {interval.label} is skipped: {reason}"
        raise IntervalSkipped(problem, "run it all the same with `siftline backfill`")
    if schedule.catch_up == "all":
        schedule_missed(schedule, ledger, interval)
