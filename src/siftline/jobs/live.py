"""Live record of a job: progress, workers and alerts of its present or last run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field

from siftline.progress import Queued, Stage, WorkerUsage
from siftline.storage.layout import JobFiles, Version
from siftline.storage.owned import Token
from siftline.storage.records import Record, RecordFile

# Upper bounds of the histogram of seconds per chunk; the last bucket has no bound.
CHUNK_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


class ChunkCounts(Record):
    """Chunks of a job; `done` includes the `reused` ones, `retried` and `split` are among them."""

    total: int = 0
    done: int = 0
    reused: int = 0
    failed: int = 0
    retried: int = 0
    split: int = 0


class RowCounts(Record):
    """Rows of a job; `rejected` ones are among those done."""

    total: int = 0
    done: int = 0
    rejected: int = 0


class Alert(Record):
    """An incident of a run: its kind, text, and chunk, if it is about one."""

    at: AwareDatetime
    kind: str
    text: str
    chunk: int | None = None


class StageTime(Record):
    """Start and end of a stage of a run."""

    stage: Stage
    started: AwareDatetime
    ended: AwareDatetime | None = None

    @property
    def seconds(self) -> float | None:
        """Duration; None while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else None


class Sample(Record):
    """A point of the timeline: totals at that time, and the memory of all workers in bytes."""

    at: AwareDatetime
    rows: int
    chunks: int
    retries: int
    workers: int
    memory: int


class ChunkSeconds(Record):
    """Histogram of the seconds per chunk: counts for the bounds `CHUNK_SECONDS` and beyond, and the sum."""

    counts: tuple[int, ...] = (0,) * (len(CHUNK_SECONDS) + 1)
    total: float = 0.0


class LiveRecord(Record):
    """State of a run that works on a job, as of `updated`.

    Attributes
    ----------
    output : str
        Absolute path of the output.
    token, commit_every : str, int
        Those of the job's `BatchPlan`.
    rows_per_second, average_rows_per_second : float or None
        Over the last seconds, and since the scoring began, without reused chunks.
    incidents : dict
        Number of incidents by kind.
    worker_memory : int or None
        Largest memory of a worker so far, in bytes.
    allocation : str or None
        Workers, threads and memory, in words.
    queue_seconds : float or None
        Seconds between the scheduled start and the beginning of the work.
    queued : Queued or None
        Place in the queue of a pool, while the run waits there.
    """

    run: str
    name: str
    interval: str | None = None
    source: str = ""
    output: str = ""
    token: Token | Literal[""] = ""
    commit_every: int = 1
    started: AwareDatetime
    updated: AwareDatetime
    ended: AwareDatetime | None = None
    stages: tuple[StageTime, ...] = ()
    chunks: ChunkCounts = ChunkCounts()
    rows: RowCounts = RowCounts()
    anomalies: int | None = None
    rows_per_second: float | None = None
    average_rows_per_second: float | None = None
    workers: tuple[WorkerUsage, ...] = ()
    alerts: tuple[Alert, ...] = ()
    incidents: dict[str, int] = Field(default={})
    chunk_seconds: ChunkSeconds = ChunkSeconds()
    timeline: tuple[Sample, ...] = ()
    dashboard: str | None = None
    worker_memory: int | None = None
    allocation: str | None = None
    queued: Queued | None = None
    queue_seconds: float | None = None

    @property
    def stage(self) -> Stage | None:
        """The present stage; None before the first and after the last."""
        return self.stages[-1].stage if self.stages and self.stages[-1].ended is None else None


def live_record(job: Path) -> RecordFile[LiveRecord]:
    """Return the live record of the job in a directory, as a record on disk."""
    return RecordFile(JobFiles(job).live, LiveRecord, Version.LIVE)
