"""Worker count of a cluster of ours: more as permitted, fewer as some are idle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from siftline.engine.dask_workers import ask, workers_of

_LEAVE_SECONDS = 5.0


@dataclass
class Sized:
    """Changes the number of workers of a cluster of ours."""

    connected: Callable[[], Any]
    permit: Callable[[int], int]

    def resize(self, workers: int) -> int:
        """Scale up as far as permitted, or down as far as workers are idle."""
        client = self.connected()
        present = ask(client, client.scheduler.ncores)
        # Workers that are still starting count, too.
        planned = max(len(present), len(getattr(client.cluster, "worker_spec", ())))
        if workers >= planned:
            allowed = max(planned, self.permit(workers))
            client.cluster.scale(allowed)
            return allowed
        leaving = _idle(client, present)[: planned - workers]
        if leaving:
            _retire(client, leaving, planned - len(leaving))
            self.permit(planned - len(leaving))
        return planned - len(leaving)


def _idle(client: Any, threads: dict[str, int]) -> list[str]:
    """Return the idle workers; none while a chunk waits at a busy one, because it may move any moment."""
    processing = ask(client, client.scheduler.processing)
    chunks = {worker: len(processing.get(worker, ())) for worker in threads}
    if any(chunks[worker] > threads[worker] for worker in threads):
        return []
    return [worker for worker in threads if not chunks[worker]]


def _retire(client: Any, leaving: list[str], left: int) -> None:
    """Close idle workers of a cluster of ours."""
    if not hasattr(client.cluster, "scale_down"):
        client.cluster.scale(left)
        return
    known = workers_of(client)
    names = [known[worker]["name"] for worker in leaving if worker in known]
    with suppress(TimeoutError):
        client.cluster.sync(client.cluster.scale_down, names, callback_timeout=_LEAVE_SECONDS)
