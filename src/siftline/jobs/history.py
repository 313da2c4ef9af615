"""History: the last publications of a pipeline, to compare the next one with."""

from __future__ import annotations

import statistics
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from siftline.errors import StorageError
from siftline.jobs.results import Manifest
from siftline.storage.layout import Version
from siftline.storage.records import Moment, RecordFile

_MOST = 30


class Publication(BaseModel):
    """A publication: its job, its scored rows, and the flagged ones among them.

    Records of earlier versions lack the fields that may be None.
    """

    model_config = ConfigDict(frozen=True)  # records of earlier versions have more fields

    publication: str
    published_at: Moment
    job_id: str
    rows: int
    anomalies: int
    rows_failed: int | None = None
    threshold: float | None = None
    duration_seconds: float | None = None
    output: str | None = None
    interval: str | None = None
    worker_memory: int | None = None

    @property
    def rate(self) -> float:
        """Share of the scored rows that are flagged."""
        return self.anomalies / self.rows if self.rows else 0.0


class _History(BaseModel):
    publications: tuple[Publication, ...] = ()


def remember(
    path: Path,
    manifest: Manifest,
    duration_seconds: float | None = None,
    interval: str | None = None,
    worker_memory: int | None = None,
) -> None:
    """Add a complete publication to the history of its pipeline, once.

    Parameters
    ----------
    duration_seconds : float, optional
        Seconds of the run that published it.
    interval : str, optional
        The interval that it is about.
    worker_memory : int, optional
        Largest memory of a worker, in bytes.
    """
    if not manifest.complete:
        return
    latest = Publication(
        publication=manifest.publication,
        published_at=manifest.published_at,
        job_id=manifest.job_id,
        rows=manifest.scored,
        anomalies=manifest.anomaly_count,
        rows_failed=manifest.rows_failed,
        threshold=manifest.threshold,
        duration_seconds=None if duration_seconds is None else round(duration_seconds, 3),
        output=manifest.config["output"]["path"],
        interval=interval,
        worker_memory=worker_memory,
    )
    with _record(path).updating() as history:
        if latest.publication not in {one.publication for one in history.publications}:
            history.publications = (*history.publications, latest)[-_MOST:]


def usual_seconds(path: Path, rows: int) -> float | None:
    """Return the seconds that a run of so many rows usually takes; None without earlier publications."""
    known = [one for one in read_history(path) if one.duration_seconds and one.rows]
    if not known:
        return None
    # A part of a run's time is the same for any number of rows: of publications of similar size first.
    nearest = sorted(known[-10:], key=lambda one: abs(one.rows - rows))[:3]
    ratios = [(one.duration_seconds or 0.0) * max(1.0, rows / one.rows) for one in nearest]
    return statistics.median(ratios)


def worker_memory(path: Path) -> int | None:
    """Return the largest memory of a worker in the last publications, in bytes; None if unknown."""
    return max((one.worker_memory for one in read_history(path) if one.worker_memory), default=None)


def read_history(path: Path) -> tuple[Publication, ...]:
    """Return the last publications of a pipeline, the newest last; none if they are unknown."""
    try:
        return _record(path).read().publications
    except (FileNotFoundError, StorageError):
        return ()


def previous_rates(path: Path, job_id: str) -> tuple[float, ...]:
    """Return the rates of the publications of a pipeline's other jobs, newest first."""
    return tuple(one.rate for one in reversed(read_history(path)) if one.job_id != job_id)


def _record(path: Path) -> RecordFile[_History]:
    return RecordFile(path, _History, Version.HISTORY)
