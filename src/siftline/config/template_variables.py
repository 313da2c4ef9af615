"""Variables of message templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TopRow:
    """One of the most anomalous rows.

    Attributes
    ----------
    rank : int
        1 for the highest score; equal scores share a rank.
    score : float
        Higher is more anomalous.
    identity : dict
        Values of the key columns and carried columns, by name.
    reasons : tuple of str
        Reasons in words, the strongest first.
    """

    rank: int
    score: float
    identity: dict[str, Any]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        identity = [f"{name}={value}" for name, value in self.identity.items()]
        return "  ".join([f"score {self.score:.4f}", *identity])


@dataclass(frozen=True)
class TemplateVariables:
    """Facts about a run; None or empty if not known.

    Attributes
    ----------
    name : str
        The pipeline.
    event : str
        The event.
    job_id, run_id : str or None
        The job, and the Prefect flow run.
    interval : str or None
        Data interval of the run.
    rows, rows_failed, anomalies : int or None
        Rows of the input, those without a score, and the flagged ones.
    rate : float or None
        Share of the scored rows that are flagged.
    previous : tuple of float
        Rates of earlier publications, newest first.
    usual_rate : float or None
        Their median.
    threshold : float or None
        Score at which a row counts as an anomaly.
    output : str or None
        Directory of the result.
    error : str or None
        The error that failed the run.
    top : tuple of TopRow
        The most anomalous rows.
    run_url, report_url : str or None
        Pages of the run and of its report.
    resume : str or None
        Command that resumes the job.
    """

    name: str
    event: str
    job_id: str | None = None
    run_id: str | None = None
    interval: str | None = None
    rows: int | None = None
    rows_failed: int | None = None
    anomalies: int | None = None
    rate: float | None = None
    previous: tuple[float, ...] = ()
    usual_rate: float | None = None
    threshold: float | None = None
    output: str | None = None
    error: str | None = None
    top: tuple[TopRow, ...] = ()
    run_url: str | None = None
    report_url: str | None = None
    resume: str | None = None
