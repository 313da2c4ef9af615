"""The jobs of checkpoints, read again and again at little cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from siftline.errors import storage_error
from siftline.jobs.record import job_directories
from siftline.jobs.status import BatchStatus, job_status


@dataclass(frozen=True)
class _Kept:
    status: BatchStatus
    changed_ns: int
    until: float


class Checkpoints:
    """Reads the status of every job in some checkpoints.

    A job that has ended is read again once its directory changes, or after `seconds`: its output may be
    replaced meanwhile. An interrupted job is always read: its process may only have been frozen.
    """

    def __init__(self, paths: Sequence[Path], seconds: float = 60.0) -> None:
        self._paths = paths
        self._seconds = seconds
        self._kept: dict[Path, _Kept] = {}

    def read(self) -> list[BatchStatus]:
        """Return the status of every job; raise a StorageError if a checkpoint cannot be read."""
        found = {job: self._job(job) for path in self._paths for job in _jobs(path)}
        self._kept = {job: kept for job, kept in found.items() if kept is not None}
        return [kept.status for kept in self._kept.values()]

    def _job(self, job: Path) -> _Kept | None:
        try:
            changed = job.stat().st_mtime_ns
            kept = self._kept.get(job)
            if kept is not None and kept.changed_ns == changed and time.monotonic() < kept.until:
                return kept
            status = job_status(job)
        except FileNotFoundError:  # deleted meanwhile
            return None
        except OSError as error:
            raise storage_error(error, job) from error
        lasting = status.final and status.state != "interrupted"
        return _Kept(status, changed, time.monotonic() + self._seconds if lasting else 0.0)


def _jobs(checkpoint: Path) -> Iterator[Path]:
    try:
        yield from job_directories(checkpoint)
    except OSError as error:
        raise storage_error(error, checkpoint) from error
