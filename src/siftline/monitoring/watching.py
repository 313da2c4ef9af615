"""Live updates of a status: at every event of the run, and every few seconds in any case."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

from siftline.errors import ApiError, StorageError
from siftline.flows.control.run_news import RunNews
from siftline.flows.control.statuses import batch_status
from siftline.jobs.status import BatchStatus

_SETTLE_SECONDS = 0.5


async def watch(
    target: str | UUID,
    checkpoint: Path | str = ".siftline",
    poll_seconds: float = 5.0,
    outage_seconds: float = 120.0,
) -> AsyncGenerator[BatchStatus, None]:
    """Yield the status of a job, a run or a pipeline as it changes, the final one last.

    Prefect's event WebSocket says when to look; where it is closed, or there is no server, the status is read
    every `poll_seconds`, so that the final one is never missed.

    Parameters
    ----------
    target, checkpoint
        Those of `batch_status`. The run of a pipeline is watched, and none that follows it.
    outage_seconds : float
        Time for which a server or a disk may be out of reach.

    Raises
    ------
    UnknownJob, UnknownPipeline, ApiError, StorageError
        As `batch_status`.
    """
    status = await asyncio.to_thread(batch_status, target, checkpoint)
    yield status
    async with RunNews() as news:
        last_seen = time.monotonic()
        while not status.final:
            of_job = status.job_id is not None and status.job_id.startswith(str(target))
            if status.flow_run_id is not None and not of_job:
                target = status.flow_run_id
            await news.of(status.flow_run_id, poll_seconds)
            try:
                found = await asyncio.to_thread(batch_status, target, checkpoint)
            except (ApiError, StorageError):
                if time.monotonic() - last_seen > outage_seconds:
                    raise
                continue
            last_seen = time.monotonic()
            if found != status:
                status = found
                yield status
            await asyncio.sleep(_SETTLE_SECONDS)
