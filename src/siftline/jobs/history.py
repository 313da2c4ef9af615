"""The last publications of a pipeline, with which people compare the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from siftline.jobs.results import Manifest
from siftline.storage.records import read_ledger, updating
from siftline.types import Record

_MOST = 30


class Publication(Record):
    """A publication: of which job, how many rows have a score, and how many of those are flagged.

    `interval_start` and `interval_end` say what time the data is of, where the pipeline has such a thing.
    """

    publication: str
    published_at: str
    job_id: str
    rows: int
    anomalies: int
    interval_start: str | None = None
    interval_end: str | None = None

    @property
    def rate(self) -> float:
        """Share of the scored rows that are flagged."""
        return self.anomalies / self.rows if self.rows else 0.0


def remember(
    checkpoint: Path, manifest: Manifest, interval_start: str | None = None, interval_end: str | None = None
) -> None:
    """Add a whole publication to the history of its pipeline, once.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    if not manifest.complete:
        return
    latest = Publication(
        publication=manifest.publication,
        published_at=manifest.published_at,
        job_id=manifest.job_id,
        rows=manifest.rows - manifest.rows_failed,
        anomalies=manifest.anomalies,
        interval_start=interval_start,
        interval_end=interval_end,
    )
    with updating(_path(checkpoint, manifest.name)) as record:
        known = _publications(record)
        if latest.publication not in {one.publication for one in known}:
            record["publications"] = [one.model_dump() for one in (*known, latest)[-_MOST:]]


def read_history(checkpoint: Path, name: str) -> tuple[Publication, ...]:
    """Return the last publications of a pipeline, the newest at the end; none, where they are not known."""
    return _publications(read_ledger(_path(checkpoint, name)))


def previous_rates(checkpoint: Path, name: str, job_id: str) -> tuple[float, ...]:
    """Return the rates of the publications of a pipeline's other jobs, newest first."""
    return tuple(one.rate for one in reversed(read_history(checkpoint, name)) if one.job_id != job_id)


def _path(checkpoint: Path, name: str) -> Path:
    return checkpoint / "history" / f"{name}.json"


def _publications(record: dict[str, Any]) -> tuple[Publication, ...]:
    try:
        return tuple(Publication.model_validate(one) for one in record.get("publications", ()))
    except (ValidationError, TypeError):  # of another version
        return ()
