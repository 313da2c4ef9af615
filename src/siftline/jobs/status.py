"""The status of a batch: one model for the command line, Python, the page and its API."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from siftline.jobs.live import Alert, ChunkCounts, ChunkSeconds, RowCounts, StageTime, WorkerUsage
from siftline.progress import Stage
from siftline.storage.records import Record

State = Literal[
    "created",  # known, not yet submitted to anything
    "queued",  # scheduled, or waiting for a worker or a slot
    "starting",  # a process has begun, and no job yet
    "running",
    "recovering",  # running, or about to, after a failure
    "completed",
    "rejected",  # completed, but rows could not be scored
    "partial",  # published without the chunks that are missing
    "failed",
    "cancelled",
    "suspended",
    "interrupted",  # its process died
]
FINAL: frozenset[State] = frozenset({"completed", "rejected", "partial", "failed", "cancelled", "interrupted"})


class Links(Record):
    """Addresses of a run's pages, and the path of its report."""

    run: str | None = None
    report: str | None = None
    dashboard: str | None = None


class BatchStatus(Record):
    """Status of a job, its present or last run, and its pipeline.

    Attributes
    ----------
    state, prefect_state : str
        The state of the job, and the name of the state of its run on the Prefect server, if known.
    since : datetime or None
        Since when it is in that state; of an interrupted run, its last sign of life.
    percent : float or None
        Share of the rows scored; 100 once published.
    rows_per_second, average_rows_per_second : float or None
        Over the last seconds, and since the scoring began.
    eta_seconds : float or None
        Estimated seconds until all rows are scored.
    queue_seconds : float or None
        Seconds between the scheduled and the actual start.
    """

    job_id: str | None = None
    flow_run_id: str | None = None
    pipeline: str | None = None
    name: str
    interval: str | None = None
    state: State
    final: bool
    prefect_state: str | None = None
    message: str | None = None
    since: AwareDatetime | None = None
    stage: Stage | None = None
    stages: tuple[StageTime, ...] = ()
    chunks: ChunkCounts = ChunkCounts()
    rows: RowCounts = RowCounts()
    percent: float | None = None
    rows_per_second: float | None = None
    average_rows_per_second: float | None = None
    eta_seconds: float | None = None
    anomalies: int | None = None
    threshold: float | None = None
    workers: tuple[WorkerUsage, ...] = ()
    error: str | None = None
    alerts: tuple[Alert, ...] = ()
    incidents: dict[str, int] = {}
    chunk_seconds: ChunkSeconds = ChunkSeconds()
    recoveries: int = 0
    due: AwareDatetime | None = None
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    updated: AwareDatetime | None = None
    queue_seconds: float | None = None
    source: str | None = None
    output: str | None = None
    size_bytes: int | None = None
    links: Links = Links()
