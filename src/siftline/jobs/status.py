"""The jobs of a checkpoint: what became of their runs, and what is left to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from siftline.errors import UnknownJob
from siftline.storage.layout import CheckpointFiles, JobFiles, Version
from siftline.storage.lease import last_holder
from siftline.storage.records import Record, RecordFile

Outcome = Literal["interrupted", "published", "failed", "failed for good", "cancelled"]


class JobRecord(Record):
    """What became of a job so far.

    `recoveries` counts the runs of the recovery flow since the job was last published; `told` are the causes
    of which people have been told since then. `steps` are those of the user's own that are done with what is
    published, each with the name of its pipeline.
    """

    outcome: Outcome = "interrupted"
    run: str | None = None
    at: str | None = None
    error: str | None = None
    recoveries: int = 0
    told: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def had_failed(self) -> bool:
        """Whether a run of it failed, or was recovered, since it was last published."""
        return self.outcome in ("failed", "failed for good") or self.recoveries > 0 or bool(self.told)


@dataclass(frozen=True)
class JobStatus:
    """A job, as it is seen from outside.

    Attributes
    ----------
    job_id, name : str
        The job, and the pipeline that it is of.
    state : str
        ``running``, ``interrupted``, or what became of it.
    run : str or None
        The run that works on it, or that did last.
    chunks, chunks_done : int
        Altogether, and those that are done.
    error : str or None
        Why the last run failed.
    """

    job_id: str
    name: str
    state: str
    run: str | None
    chunks: int
    chunks_done: int
    error: str | None


def job_record(directory: Path) -> RecordFile[JobRecord]:
    """Return the record of how a job's runs ended, in the job's directory."""
    return RecordFile(JobFiles(directory).job, JobRecord, Version.JOB)


def read_job(directory: Path) -> JobRecord:
    """Read how a job's runs ended; an empty record if that is unknown."""
    return job_record(directory).read_or(JobRecord())


def write_job(directory: Path, record: JobRecord) -> None:
    """Write how a job's runs ended.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    job_record(directory).write(record)


def concluded(record: JobRecord, outcome: Outcome, run: str | None, error: str | None = None) -> JobRecord:
    """Return the record with what became of a run. What is published starts a new count."""
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
    """Return the directory of a job, of whose id the beginning is enough.

    Raises
    ------
    UnknownJob
        When there is none, or more than one.
    """
    found = [directory for directory in job_directories(checkpoint) if directory.name.startswith(job_id)]
    if len(found) == 1 and job_id:
        return found[0]
    problem = f"{len(found)} jobs begin so" if found else "there is no such job"
    raise UnknownJob(
        f"job {job_id!r}: {problem} in {checkpoint}",
        "see `siftline jobs`, and give --checkpoint where it is not .siftline",
    )


def job_status(directory: Path, name: str, chunks: int, chunks_done: int) -> JobStatus:
    """Return the status of a job, of which the chunks have been counted.

    A run that neither holds its job any more nor gave it back was interrupted.
    """
    record, (last, lease) = read_job(directory), last_holder(directory)
    state = {"held": "running", "lost": "interrupted", "released": record.outcome}[lease]
    return JobStatus(
        job_id=directory.name,
        name=name,
        state=state,
        run=last.run if last else record.run,
        chunks=chunks,
        chunks_done=chunks_done,
        error=record.error if lease == "released" else None,
    )
