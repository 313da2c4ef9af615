"""What people are told of a run, in words; see `siftline.notices.delivery` for who is told when."""

from __future__ import annotations

import logging
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siftline.config.fields import Event
from siftline.config.template_variables import Facts, TopRow
from siftline.storage.layout import JobFiles
from siftline.types import BatchResult

_LEVELS: dict[Event, int] = {
    "completed": logging.INFO,
    "rejected": logging.WARNING,
    "recovering": logging.WARNING,
    "recovered": logging.INFO,
    "failed": logging.ERROR,
}


@dataclass(frozen=True)
class Run:
    """What is known of a run whatever becomes of it; see `siftline.config.template_variables.Facts`."""

    name: str
    run_id: str | None = None
    run_url: str | None = None
    interval: str | None = None
    report_url: str | None = None


@dataclass(frozen=True)
class Message:
    """What is said, and the cause: of one cause people are told once for a job.

    A publication may be two events, of which the first gives the message its name: whoever wants to be told
    of either gets this one message.
    """

    events: tuple[Event, ...]
    subject: str
    body: str
    facts: Facts
    cause: str = ""

    @property
    def event(self) -> Event:
        """What it tells of."""
        return self.events[0]

    @property
    def level(self) -> int:
        """How severe it is, as a level of `logging`."""
        return _LEVELS[self.event]


def completed_message(
    run: Run,
    result: BatchResult,
    previous: Sequence[float] = (),
    top: Sequence[TopRow] = (),
    recovered: bool = False,
) -> Message:
    """Say what a finished run came to.

    Parameters
    ----------
    run, result
        Which run, and what it came to.
    previous : sequence of float
        The shares of anomalies of the publications before, newest first.
    top : sequence of TopRow
        The most anomalous rows.
    recovered : bool
        Whether the job had failed before.
    """
    events: tuple[Event, ...] = ("recovered", "completed") if recovered else ("completed",)
    if result.rows_failed:
        events = ("rejected", "recovered") if recovered else ("rejected",)
    scored = result.rows - result.rows_failed
    facts = Facts(
        name=run.name,
        event=events[0],
        job_id=result.job_id,
        run_id=run.run_id,
        interval=run.interval,
        rows=result.rows,
        rows_failed=result.rows_failed,
        anomalies=result.anomalies,
        rate=result.anomalies / scored if scored else 0.0,
        previous=tuple(previous),
        usual_rate=statistics.median(previous) if previous else None,
        threshold=result.threshold,
        output=result.output,
        top=tuple(top),
        run_url=run.run_url,
        report_url=run.report_url,
    )
    rejects = _rejects(result)
    subject = f"Siftline: {run.name} {'recovered' if recovered else 'completed'}"
    subject += " with rejects" if rejects else ""
    chunks = f"Chunks: {result.chunks_computed} computed, {result.chunks_reused} reused."
    where = "They are told with the results: `failed`, and `chunks_failed` in the manifest."
    lines = [f"{rejects}. {where}"] if rejects else []
    lines += [_numbers(facts, scored), *_most_anomalous(top), chunks, f"Results: {result.output}"]
    if recovered:
        lines.append("Earlier runs of the job failed or were interrupted; what they had done was kept.")
    return Message(events, subject, _text(lines, facts), facts, rejects)


def failed_message(run: Run, error: BaseException, job: Path | None, for_good: bool) -> Message:
    """Say why a run failed, what is kept, and how to go on."""
    subject = f"Siftline: {run.name} failed{' for good' if for_good else ''}"
    facts = _unfinished(run, "failed", job, str(error))
    lines = [f"{type(error).__name__}: {error}"]
    if job is not None:
        lines += [
            f"Kept: the chunks of job {job.name} that are done, and the result that was published before.",
            f"To go on: {facts.resume}",
        ]
    return Message(("failed",), subject, _text(lines, facts), facts, _cause(error))


def recovering_message(run: Run, job: Path, number: int, most: int, left: int) -> Message:
    """Say that a job that failed is taken up again."""
    facts = _unfinished(run, "recovering", job)
    lines = [f"Recovery {number} of {most} of job {job.name} has begun; {left:,} chunks are left."]
    return Message(("recovering",), f"Siftline: {run.name} is taken up again", _text(lines, facts), facts)


def resume_command(job: Path) -> str:
    """Return the command that goes on with a job, given its directory."""
    return f"siftline resume {job.name} --checkpoint {JobFiles(job).checkpoint.root}"


def _unfinished(run: Run, event: Event, job: Path | None, error: str | None = None) -> Facts:
    return Facts(
        name=run.name,
        event=event,
        job_id=job.name if job is not None else None,
        run_id=run.run_id,
        interval=run.interval,
        error=error,
        run_url=run.run_url,
        resume=resume_command(job) if job is not None else None,
    )


def _text(lines: Sequence[str], facts: Facts) -> str:
    """Close a text with the things to follow up, of those that are known."""
    links = {"Interval": facts.interval, "Report": facts.report_url, "Run": facts.run_url}
    if facts.rows is not None:
        links["Job"] = facts.job_id
    return "\n".join([*lines, *(f"{what}: {where}" for what, where in links.items() if where)])


def _rejects(result: BatchResult) -> str:
    if not result.rows_failed:
        return ""
    rejects = f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
    if result.chunks_failed:
        chunks = "1 chunk" if result.chunks_failed == 1 else f"{result.chunks_failed:,} chunks"
        rejects += f", among them {chunks} as a whole"
    return rejects


def _numbers(facts: Facts, scored: int) -> str:
    rate, count = f"{facts.rate:.3%}", len(facts.previous)
    if count == 1:
        rate += f", {facts.usual_rate:.3%} in the run before"
    if count > 1:
        rate += f", usually {facts.usual_rate:.3%} in the last {count} runs"
    score = f"score {facts.threshold:.6g} or more"
    return f"{facts.anomalies:,} anomalies among {scored:,} rows ({rate}), {score}."


def _most_anomalous(top: Sequence[TopRow]) -> list[str]:
    rows = [f"{row.rank}. {row}: {'; '.join(row.reasons)}" for row in top]
    return ["Most anomalous:", *rows] if rows else []


def _cause(error: BaseException) -> str:
    """What failed, without numbers and random names: another chunk is not another cause."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", f"{type(error).__name__}: {error}")
