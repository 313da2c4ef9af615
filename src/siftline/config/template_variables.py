"""Variables of message templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TopRow:
    """One of the most anomalous rows; equal scores share a rank."""

    rank: int
    score: float
    identity: dict[str, Any]  # values of the key columns and carried columns
    reasons: tuple[str, ...]  # in words, the strongest first

    def __str__(self) -> str:
        identity = [f"{name}={value}" for name, value in self.identity.items()]
        return "  ".join([f"score {self.score:.4f}", *identity])


@dataclass(frozen=True)
class TemplateVariables:
    """Facts about a run; None or empty if not known."""

    name: str
    event: str
    job_id: str | None = None
    run_id: str | None = None
    interval: str | None = None
    rows: int | None = None
    rows_failed: int | None = None
    anomalies: int | None = None
    rate: float | None = None  # anomalies among the scored rows
    previous: tuple[float, ...] = ()  # rates of earlier publications, newest first
    usual_rate: float | None = None  # their median
    threshold: float | None = None
    output: str | None = None
    error: str | None = None
    groups: tuple[str, ...] = ()  # the largest groups of anomalies, in words
    top: tuple[TopRow, ...] = ()
    run_url: str | None = None
    report_url: str | None = None
    report_path: str | None = None  # of report.html
    resume: str | None = None  # command that resumes the job
