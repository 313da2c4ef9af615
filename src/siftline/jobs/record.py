"""The jobs of a checkpoint, and the outcomes of their runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from siftline.errors import UnknownJob
from siftline.storage.layout import CheckpointFiles, JobFiles, Version
from siftline.storage.records import Moment, Record, RecordFile

Outcome = Literal["interrupted", "published", "failed", "failed for good", "cancelled", "suspended", "queued"]


class JobRecord(Record):
    """The outcome of a job's last run, and what happened since the job was last published.

    `recoveries` counts the runs of the recovery flow since then.
    """

    outcome: Outcome = "interrupted"
    run: str | None = None
    at: Moment | None = None
    error: str | None = None
    recoveries: int = 0
    told: tuple[str, ...] = ()  # causes of failure that were notified
    steps: tuple[str, ...] = ()  # own steps that ran with the published result, with their pipeline

    @property
    def had_failed(self) -> bool:
        """True if a run of it failed or was recovered since it was last published."""
        return self.outcome in ("failed", "failed for good") or self.recoveries > 0 or bool(self.told)


def read_job(directory: Path) -> JobRecord:
    """Read the record of a job; an empty one if it is missing or damaged."""
    return _file(directory).read_or(JobRecord())


def write_job(directory: Path, record: JobRecord) -> None:
    """Write the record of a job."""
    _file(directory).write(record)


def _file(directory: Path) -> RecordFile[JobRecord]:
    return RecordFile(JobFiles(directory).job, JobRecord, Version.JOB)


def concluded(record: JobRecord, outcome: Outcome, run: str | None, error: str | None = None) -> JobRecord:
    """Return the record with the outcome of a run; a publication resets all counts."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    update = {"outcome": outcome, "run": run, "at": now, "error": error}
    if outcome == "published":
        return JobRecord.model_validate({**update, "steps": record.steps})
    return record.model_copy(update=update)


def job_directories(checkpoint: Path | str) -> list[Path]:
    """Return the directories of all jobs in a checkpoint, the newest plan last."""
    jobs = CheckpointFiles(Path(checkpoint)).jobs()
    planned = sorted((job.plan.stat().st_mtime_ns, job.directory) for job in jobs)
    return [directory for _, directory in planned]


def find_job(checkpoint: Path | str, job_id: str) -> Path:
    """Find a job's directory by a unique prefix of its id; raise `UnknownJob` on no or several matches."""
    found = [directory for directory in job_directories(checkpoint) if directory.name.startswith(job_id)]
    if len(found) == 1 and job_id:
        return found[0]
    problem = f"is ambiguous: it matches {len(found)} jobs" if found else "matches no job"
    raise UnknownJob(
        f"job id {job_id!r} {problem} in {checkpoint}",
        "see `siftline jobs`; if the checkpoint is not .siftline, give --checkpoint",
    )
