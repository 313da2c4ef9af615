"""The status of a batch: one model for the command line, Python, the page and its API."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from siftline.errors import StorageError, UnknownJob
from siftline.jobs.live import Alert, ChunkCounts, ChunkSeconds, LiveRecord, RowCounts, StageTime, live_record
from siftline.jobs.plans import read_plan
from siftline.jobs.record import JobRecord, job_directories, read_job
from siftline.jobs.results import Manifest, manifest_record
from siftline.progress import Stage, WorkerUsage
from siftline.storage.layout import JobFiles, OutputFiles
from siftline.storage.lease import last_holder
from siftline.storage.lease_file import Holder
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
FINAL: frozenset[State] = frozenset(
    {"completed", "rejected", "partial", "failed", "cancelled", "interrupted"}
)

_OF_JOB = ("name", "interval", "source", "output")
_OF_RUN = (
    *("stages", "chunks", "rows", "anomalies", "alerts", "incidents"),
    *("average_rows_per_second", "chunk_seconds", "updated", "allocation", "queue_seconds"),
)


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
    queue_place : int or None
        Place in the queue of the pool, from 1, while the run waits there.
    wait_seconds : float or None
        Estimated seconds until its turn.
    allocation : str or None
        Workers, threads and memory, in words.
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
    incidents: dict[str, int] = Field(default={})
    chunk_seconds: ChunkSeconds = ChunkSeconds()
    recoveries: int = 0
    due: AwareDatetime | None = None
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    updated: AwareDatetime | None = None
    queue_seconds: float | None = None
    queue_place: int | None = None
    wait_seconds: float | None = None
    allocation: str | None = None
    source: str | None = None
    output: str | None = None
    size_bytes: int | None = None
    links: Links = Links()


def job_status(job: Path, with_size: bool = False) -> BatchStatus:
    """Return the status of the job in a directory, from the checkpoint and the output alone.

    Raises
    ------
    StorageError
        When the checkpoint cannot be read.
    """
    record, live = read_job(job), live_record(job).read_or(None)
    holder, lease = last_holder(job)
    manifest = _manifest(live, job)
    state = _state(record, lease, manifest)
    begins = live is not None and holder is not None and live.run != holder.run
    if state in ("running", "recovering") and live is not None and live.queued is not None and not begins:
        state = "queued"
    at_work = state in ("running", "recovering", "queued")
    known: dict[str, Any] = {}
    if live is not None:
        known = _of_run_before(live) if begins and at_work else _of_live(live, state)
    else:
        known = _of_plan(job)
    if state == "interrupted" and live is not None:
        # What it had scored beside the committed chunks is lost.
        least = live.chunks.done if live.ended else live.chunks.reused
        done = max(least, _committed(job, live.token, live.commit_every, live.chunks.total))
        known["chunks"] = live.chunks.model_copy(update={"done": done})
    if manifest is not None and not at_work:
        known |= {"anomalies": manifest.anomaly_count, "threshold": manifest.threshold}
        report = OutputFiles(Path(str(known["output"]))).report
        known["links"] = Links(report=str(report) if report.exists() else None)
    return BatchStatus.model_validate(
        {
            "job_id": job.name,
            "flow_run_id": holder.run if holder else record.run,
            "name": job.name,
            "state": state,
            "final": state in FINAL,
            "error": record.error if lease == "released" else None,
            "recoveries": record.recoveries,
            "size_bytes": _size(job) if with_size else None,
            **known,
            **_since(state, record, live, holder),
        }
    )


def batch_statuses(checkpoint: Path | str = ".siftline", with_size: bool = False) -> list[BatchStatus]:
    """Return the status of every job in a checkpoint, in the order of planning; no server is asked."""
    return [job_status(job, with_size) for job in job_directories(checkpoint)]


def live_status(live: LiveRecord, state: State, job_id: str | None) -> BatchStatus:
    """Return the status of a run from its live record, where the checkpoint is out of reach."""
    known = {"job_id": job_id, "flow_run_id": live.run, "state": state, "final": state in FINAL}
    return BatchStatus.model_validate({**known, "started": live.started, **_of_live(live, state)})


def _state(record: JobRecord, lease: str, manifest: Manifest | None) -> State:
    if lease == "held":
        return "recovering" if record.had_failed else "running"
    if lease == "lost":
        return "interrupted"
    if manifest is not None and not manifest.complete:
        return "partial"
    if record.outcome == "published":
        return "rejected" if manifest is not None and manifest.rows_failed else "completed"
    return "failed" if record.outcome == "failed for good" else record.outcome


def _manifest(live: LiveRecord | None, job: Path) -> Manifest | None:
    """Return the published manifest, if it is this job's and can be read."""
    if live is None:
        return None
    try:
        found = manifest_record(Path(live.output)).read_or(None)
    except StorageError:  # the checkpoint says enough
        return None
    return found if found is not None and found.job_id == job.name else None


def _of_run_before(live: LiveRecord) -> dict[str, Any]:
    """Return the fields of a live record that hold for the next run, too."""
    totals = {"chunks": ChunkCounts(total=live.chunks.total), "rows": RowCounts(total=live.rows.total)}
    return {**{name: getattr(live, name) for name in _OF_JOB}, **totals}


def _of_live(live: LiveRecord, state: State) -> dict[str, Any]:
    """Return the fields of a live record; those of the moment only while its run works."""
    total, done = live.rows.total, live.rows.done
    published = state in ("completed", "rejected")
    known = {
        **{name: getattr(live, name) for name in (*_OF_JOB, *_OF_RUN)},
        "percent": 100.0 if published else 100 * done / total if total else None,
    }
    if state in ("running", "recovering"):
        speed = live.rows_per_second or live.average_rows_per_second
        known |= {
            "stage": live.stage,
            "rows_per_second": live.rows_per_second,
            "workers": live.workers,
            "eta_seconds": (total - done) / speed if speed and live.stage == "detect" else None,
            "links": Links(dashboard=live.dashboard),
        }
    if state == "queued" and live.queued is not None:
        known |= {"queue_place": live.queued.place, "wait_seconds": live.queued.seconds}
    return known


def _of_plan(job: Path) -> dict[str, Any]:
    """Return the fields of a job of an earlier version, which has no live record."""
    try:
        plan = read_plan(job)
    except UnknownJob:
        return {"message": "its plan is of another version of Siftline"}
    done = _committed(job, plan.token, plan.commit_every, len(plan.chunks))
    return {
        "name": plan.config.name,
        "source": plan.config.source.path,
        "output": str(plan.output.root),
        "chunks": ChunkCounts(total=len(plan.chunks), done=done),
        "rows": RowCounts(total=plan.rows),
    }


def _committed(job: Path, token: str, every: int, total: int) -> int:
    """Count the chunks in complete groups of receipts, without reading them."""
    receipts = JobFiles(job).receipts / token
    complete = sum(1 for path in receipts.glob("*.json") if "-" not in path.stem)
    return min(total, complete * every)


def _since(state: State, record: JobRecord, live: LiveRecord | None, holder: Holder | None) -> dict[str, Any]:
    started = holder.began if holder is not None else None
    if state in ("running", "recovering"):
        return {"since": started, "started": started, "message": None}
    if state == "interrupted":
        seen = [live.updated] if live is not None and holder is not None and live.run == holder.run else []
        since = max([*seen, *filter(None, [started])], default=None)
        by = f"process {holder.pid} on {holder.host}" if holder is not None else "its process"
        return {"since": since, "started": started, "message": f"{by} ended without a word"}
    at = datetime.fromisoformat(record.at) if record.at is not None else None
    return {"since": at, "started": started, "ended": at}


def _size(job: Path) -> int:
    """Return the bytes on disk of a job's directory, whose files may come and go meanwhile."""
    total = 0
    for path in job.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
