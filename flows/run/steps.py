"""The user's own steps around the notification: each runs once per publication."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prefect import get_run_logger

from siftline.jobs.record import read_job, write_job
from siftline.pipelines.assignment import Assignment
from siftline.pipelines.steps import Step
from siftline.tasks.run_step import run_step
from siftline.types import BatchResult


def run_steps(assignment: Assignment, result: BatchResult, job: Path, *, notified: bool) -> BatchResult:
    """Run the remaining steps before the notification or after it.

    Returns the result, in the state of its publication if an earlier run did not get beyond a step.
    """
    for name, step in _named_steps(assignment, notified):
        if name in read_job(job).steps:
            get_run_logger().info("step %s is done already", step.uses)
            continue
        if result.state == "AlreadyPublished":
            state = "CompletedWithRejects" if result.rows_failed else "Completed"
            result = result.model_copy(update={"state": state})
        run_step(step, result)
        record = read_job(job)
        write_job(job, record.model_copy(update={"steps": (*record.steps, name)}))
    return result


def forget_steps(job: Path) -> None:
    """Let the steps run again for a new publication."""
    record = read_job(job)
    if record.steps:
        write_job(job, record.model_copy(update={"steps": ()}))


def _named_steps(assignment: Assignment, notified: bool) -> list[tuple[str, Step]]:
    """Name the steps before the notification or after it; repeated functions get a number."""
    before, after = assignment.own_steps(notified=False), assignment.own_steps(notified=True)
    count: Counter[str] = Counter()
    named = []
    for step in (*before, *after):
        count[step.uses] += 1
        number = f" {count[step.uses]}" if count[step.uses] > 1 else ""
        named.append((f"{assignment.config.name}: {step.uses}{number}", step))
    return named[len(before) :] if notified else named[: len(before)]
