"""What is known of a run when people are told of it: the variables of the templates of a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TopRow:
    """One of the most anomalous rows.

    Attributes
    ----------
    rank : int
        1 for the highest score; equal scores share one.
    score : float
        Higher is more anomalous.
    identity : dict
        The key columns and those that are carried over, by name.
    reasons : tuple of str
        Why, in words; the strongest reason first.
    """

    rank: int
    score: float
    identity: dict[str, Any]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        identity = [f"{name}={value}" for name, value in self.identity.items()]
        return "  ".join([f"score {self.score:.4f}", *identity])


@dataclass(frozen=True)
class Facts:
    """What is known of a run; None, or nothing, where something is not.

    Attributes
    ----------
    name : str
        The pipeline.
    event : str
        What is told of.
    job_id, run_id : str or None
        The job, and the Prefect flow run.
    interval : str or None
        What time the data is of.
    rows, rows_failed, anomalies : int or None
        Of the input; of those, the ones without a score; and the ones that are flagged.
    rate : float or None
        Share of the scored rows that are flagged.
    previous : tuple of float
        The rates of the publications before, newest first.
    usual_rate : float or None
        Their median.
    threshold : float or None
        The score from which on a row is an anomaly.
    output : str or None
        The directory of the result.
    error : str or None
        Why the run failed.
    top : tuple of TopRow
        The most anomalous rows.
    run_url, report_url : str or None
        The pages of the run and of its report.
    resume : str or None
        The command that goes on with the job.
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
