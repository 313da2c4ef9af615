"""Texts of the messages about a run; `siftline.notices.delivery` sends them."""

from __future__ import annotations

import logging
import re
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from siftline.config.fields import Event
from siftline.config.template_variables import TemplateVariables, TopRow
from siftline.errors import ConfigError
from siftline.progress import counted
from siftline.shown import message_text, plain_text
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
class RunInfo:
    """Identity of a run, for its messages; see `siftline.config.template_variables.TemplateVariables`."""

    name: str
    run_id: str | None = None
    run_url: str | None = None
    interval: str | None = None
    report_url: str | None = None
    report_path: str | None = None


@dataclass(frozen=True)
class Message:
    """Message about one or two events, named by the first; each cause of a job is announced once."""

    events: tuple[Event, ...]
    subject: str
    body: str
    variables: TemplateVariables
    cause: str = ""

    @property
    def event(self) -> Event:
        """The event that names the message."""
        return self.events[0]

    @property
    def level(self) -> int:
        """Severity, as a level of `logging`."""
        return _LEVELS[self.event]


def completed_message(
    run: RunInfo,
    result: BatchResult,
    previous: Sequence[float] = (),
    top: Sequence[TopRow] = (),
    recovered: bool = False,
    groups: Sequence[str] = (),
    cautions: Sequence[str] = (),
) -> Message:
    """Write the message about a published result.

    `previous` has the earlier rates, newest first; `groups` are groups of anomalies in words; `cautions` are
    sentences that a reader of the result must know.
    """
    events: tuple[Event, ...] = ("recovered", "completed") if recovered else ("completed",)
    if result.rows_failed:
        events = ("rejected", "recovered") if recovered else ("rejected",)
    variables = TemplateVariables(
        **asdict(run),
        event=events[0],
        job_id=result.job_id,
        rows=result.rows,
        rows_failed=result.rows_failed,
        anomalies=result.anomaly_count,
        rate=result.rate,
        previous=tuple(previous),
        usual_rate=statistics.median(previous) if previous else None,
        threshold=result.threshold,
        output=result.output,
        groups=tuple(groups),
        top=tuple(top),
    )
    rejects = _rejects(result)
    subject = f"Siftline: {run.name} {'recovered' if recovered else 'completed'}"
    subject += " with rejects" if rejects else ""
    chunks = f"Chunks: {result.chunks_computed} computed, {result.chunks_reused} reused."
    where = "See `results.failed` and, for whole chunks, `chunks_failed` in the manifest."
    lines = [f"{rejects}. {where}"] if rejects else []
    lines += [_numbers(variables, result.scored), *cautions, *groups, *_most_anomalous(top), chunks]
    lines.append(f"Results: {result.output}")
    if recovered:
        lines.append("Earlier runs of the job failed or were interrupted; their finished work was reused.")
    return _message(events, subject, lines, variables, rejects)


def failed_message(run: RunInfo, error: BaseException, job: Path | None, for_good: bool) -> Message:
    """Write the message about a failure: the error, the finished work, and the command to resume."""
    subject = f"Siftline: {run.name} failed{' for good' if for_good else ''}"
    variables = _unfinished(run, "failed", job, plain_text(error))
    lines = _named(error).split("\n") if isinstance(error, ConfigError) else [_named(error)]
    if job is not None:
        lines += [
            f"Kept: the finished chunks of job {job.name}, and the previously published result.",
            f"To resume: {variables.resume}",
        ]
    return _message(("failed",), subject, lines, variables, _cause(error))


def recovering_message(run: RunInfo, job: Path, number: int, most: int, left: int) -> Message:
    """Write the message about the recovery of a failed job."""
    variables = _unfinished(run, "recovering", job)
    lines = [f"Recovery {number} of {most} of job {job.name} has started; {left:,} chunks are left."]
    return _message(("recovering",), f"Siftline: {run.name} is recovering", lines, variables)


def resume_command(job: Path) -> str:
    """Return the command that resumes the job in a directory."""
    return f"siftline resume {job.name} --checkpoint {shlex.quote(str(JobFiles(job).checkpoint.root))}"


def _unfinished(run: RunInfo, event: Event, job: Path | None, error: str | None = None) -> TemplateVariables:
    return TemplateVariables(
        **asdict(run),
        event=event,
        job_id=job.name if job is not None else None,
        error=error,
        resume=resume_command(job) if job is not None else None,
    )


def _message(
    events: tuple[Event, ...],
    subject: str,
    lines: Sequence[str],
    variables: TemplateVariables,
    cause: str = "",
) -> Message:
    """Return a message of lines and links; neither text nor variables call people."""
    body = "\n".join(map(message_text, [*lines, *_links(variables)]))
    known = TemplateVariables(**{name: _safe(value) for name, value in vars(variables).items()})
    return Message(events, message_text(subject), body, known, cause)


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return message_text(value)
    if isinstance(value, TopRow):
        identity = {message_text(name): _safe(one) for name, one in value.identity.items()}
        return replace(value, identity=identity, reasons=_safe(value.reasons))
    return tuple(map(_safe, value)) if isinstance(value, tuple) else value


def _links(variables: TemplateVariables) -> list[str]:
    """Return lines with the links and the interval, if known."""
    links = {"Interval": variables.interval, "Report": variables.report_url}
    links |= {"Report file": variables.report_path, "Run": variables.run_url}
    if variables.rows is not None:
        links["Job"] = variables.job_id
    return [f"{what}: {where}" for what, where in links.items() if where]


def _rejects(result: BatchResult) -> str:
    if not result.rows_failed:
        return ""
    rejects = f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
    if result.chunks_failed:
        chunks = "1 chunk" if result.chunks_failed == 1 else f"{result.chunks_failed:,} chunks"
        rejects += f", including {chunks} as a whole"
    return rejects


def _numbers(variables: TemplateVariables, scored: int) -> str:
    rate, count = f"{variables.rate:.3%}", len(variables.previous)
    if count == 1:
        rate += f", {variables.usual_rate:.3%} in the run before"
    if count > 1:
        rate += f", usually {variables.usual_rate:.3%} in the last {count} runs"
    score = f"score {variables.threshold:.6g} or more"
    found = counted(variables.anomalies or 0, "anomaly", "anomalies")
    return f"{found} among {counted(scored, 'row')} ({rate}), {score}."


def _most_anomalous(top: Sequence[TopRow]) -> list[str]:
    rows = [f"{row.rank}. {row}: {'; '.join(row.reasons)}" for row in top]
    return ["Most anomalous:", *rows] if rows else []


def _cause(error: BaseException) -> str:
    """Return the error without numbers and random names: another chunk is not another cause."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", _named(error))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {plain_text(error)}"
