"""Progress as Prefect artifacts, at most one update a second."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact

from siftline.progress import Progress
from tasks.waiting import waited

_SECONDS_BETWEEN = 1.0


class ProgressArtifact:
    """Shows the chunks done, on the page of the flow run."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._updated = 0.0

    def __call__(self, progress: Progress) -> None:
        """Take a report of the detection."""
        if progress.stage != "detect" or not progress.chunks_total:
            return
        percent = 100 * progress.chunks_done / progress.chunks_total
        now = time.monotonic()
        if self._artifact is None:
            self._artifact = waited(
                create_progress_artifact(percent, key="siftline-progress", description="Chunks scored.")
            )
        elif now - self._updated >= _SECONDS_BETWEEN or progress.chunks_done == progress.chunks_total:
            waited(update_progress_artifact(self._artifact, percent))
        else:
            return
        self._updated = now


def link_dashboard(address: str | None) -> None:
    """Link the Dask dashboard from the page of the flow run, if there is one."""
    if address is not None:
        waited(
            create_link_artifact(
                address,
                link_text="Dask dashboard",
                key="siftline-dask-dashboard",
                description="The workers, live.",
            )
        )
