"""History: the last publications of a pipeline, to compare the next one with."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from siftline.errors import StorageError
from siftline.jobs.results import Manifest
from siftline.storage.layout import Version
from siftline.storage.records import RecordFile

_MOST = 30


class Publication(BaseModel):
    """A publication: its job, its scored rows, and the flagged ones among them.

    Records of earlier versions lack the fields that may be None.
    """

    model_config = ConfigDict(frozen=True)  # records of earlier versions have more fields

    publication: str
    published_at: str
    job_id: str
    rows: int
    anomalies: int
    rows_failed: int | None = None
    threshold: float | None = None
    duration_seconds: float | None = None
    output: str | None = None
    interval: str | None = None

    @property
    def rate(self) -> float:
        """Share of the scored rows that are flagged."""
        return self.anomalies / self.rows if self.rows else 0.0


class _History(BaseModel):
    publications: tuple[Publication, ...] = ()


def remember(
    path: Path, manifest: Manifest, duration_seconds: float | None = None, interval: str | None = None
) -> None:
    """Add a complete publication to the history of its pipeline, once.

    Parameters
    ----------
    duration_seconds : float, optional
        Seconds of the run that published it.
    interval : str, optional
        The interval that it is about.
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
    )
    with _record(path).updating() as history:
        if latest.publication not in {one.publication for one in history.publications}:
            history.publications = (*history.publications, latest)[-_MOST:]


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
