"""Progress as Prefect artifacts, at most one update a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import get_run_logger
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
        now = time.monotonic()
        finished = progress.chunks_done == progress.chunks_total
        if self._artifact is None or finished or now - self._updated >= _SECONDS_BETWEEN:
            self._updated = now
            with best_effort("the progress artifact"):
                self._show(100 * progress.chunks_done / progress.chunks_total)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = waited(
                create_progress_artifact(percent, key="siftline-progress", description="Chunks scored.")
            )
        else:
            waited(update_progress_artifact(self._artifact, percent))


def link_dashboard(address: str | None) -> None:
    """Link the Dask dashboard from the page of the flow run, if there is one."""
    if address is None:
        return
    with best_effort("the link to the Dask dashboard"):
        waited(
            create_link_artifact(
                address,
                link_text="Dask dashboard",
                key="siftline-dask-dashboard",
                description="The workers, live.",
            )
        )


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Log what fails and go on: what people are shown of a job is not the job."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever reaching the API raises
        get_run_logger().warning("%s could not be written: %s", what, type(error).__name__)
