"""The user's own steps around the notification: each is done once for what is published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prefect import get_run_logger

from siftline.jobs.status import read_job, write_job
from siftline.pipelines.assignment import Assignment
from siftline.pipelines.steps import Step
from siftline.types import BatchResult
from tasks.run_step import run_step


def run_steps(assignment: Assignment, result: BatchResult, job: Path, *, notified: bool) -> BatchResult:
    """Run those steps before the notification, or after it, that are not done with the publication.

    Returns
    -------
    BatchResult
        The result; in the state of its publication, where an earlier run did not get beyond a step.
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
    """Have the steps run again for a new publication."""
    record = read_job(job)
    if record.steps:
        write_job(job, record.model_copy(update={"steps": ()}))


def _named_steps(assignment: Assignment, notified: bool) -> list[tuple[str, Step]]:
    """Name the steps before the notification or after it; a function that comes twice gets a number."""
    count: Counter[str] = Counter()
    named: dict[bool, list[tuple[str, Step]]] = {False: [], True: []}
    for after in named:
        for step in assignment.own_steps(notified=after):
            count[step.uses] += 1
            number = f" {count[step.uses]}" if count[step.uses] > 1 else ""
            named[after].append((f"{assignment.config.name}: {step.uses}{number}", step))
    return named[notified]
