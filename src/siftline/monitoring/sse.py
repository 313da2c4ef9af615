"""Server-sent events: the status of one job, or of all, as it changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi.sse import ServerSentEvent

from siftline.monitoring.board import Board


async def job_events(board: Board, job_id: str, seen: str | None) -> AsyncIterator[ServerSentEvent]:
    """Yield ``status`` at once and whenever it changes, and ``end`` after the final one.

    `seen` is the id of the last event that the client has: the status that it has is not sent again.
    """
    async for reading in board.readings():
        posted = reading.jobs.get(job_id)
        if posted is not None and posted.digest != seen:
            seen = posted.digest
            yield ServerSentEvent(event="status", id=seen, raw_data=posted.json)
        if posted is None or posted.status.final:
            yield ServerSentEvent(event="end", data=posted.status.state if posted else "removed")
            return


async def all_events(board: Board, seen: str | None, limit: int) -> AsyncIterator[ServerSentEvent]:
    """Yield the newest jobs, and whatever changes among them.

    ``jobs`` has the ids, newest first, when they change; ``status`` a job that has changed; ``problem`` the
    reason why storage cannot be read, or null; ``read`` ends each round, with the id to reconnect with.
    """
    ids: list[str] | None = None
    problem: str | None = None
    sent: dict[str, str] = {}
    async for reading in board.readings():
        newest = dict(list(reading.jobs.items())[:limit])
        if ids is None and reading.digest == seen:
            ids, sent = list(newest), {job: posted.digest for job, posted in newest.items()}
        if ids != list(newest):
            ids = list(newest)
            yield ServerSentEvent(event="jobs", data=ids)
        for job_id, posted in newest.items():
            if sent.get(job_id) != posted.digest:
                yield ServerSentEvent(event="status", raw_data=posted.json)
        sent = {job: posted.digest for job, posted in newest.items()}
        if problem != reading.problem:
            problem = reading.problem
            yield ServerSentEvent(event="problem", raw_data=json.dumps(problem))
        yield ServerSentEvent(event="read", id=reading.digest, data=len(newest))
