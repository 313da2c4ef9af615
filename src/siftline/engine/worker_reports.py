"""Reports of a cluster's workers: the lines that they log, and their usage."""

from __future__ import annotations

import math
import queue
import time
from contextlib import suppress
from typing import Any

from siftline.engine.base import USAGE_SECONDS
from siftline.engine.dask_workers import workers_of
from siftline.progress import Usage, WorkerUsage, emit


class WorkerReports:
    """Emits what workers log, and their usage now and then; `usage` is the last one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._next = -math.inf
        self.usage: tuple[WorkerUsage, ...] = ()

    def take(self, line: bytes) -> None:
        """Take a pickled `LogLine` of a worker, from any thread."""
        self._lines.put(line)

    def emit(self) -> None:
        """Emit the lines taken, and the usage unless the last one is too new."""
        from distributed.protocol.pickle import loads

        with suppress(queue.Empty):
            while True:
                emit(loads(self._lines.get_nowait()))
        now = time.monotonic()
        if now >= self._next and self._client.status == "running":
            workers = workers_of(self._client)
            self._next = now + USAGE_SECONDS * max(1, len(workers) / 100)
            self.usage = tuple(map(_usage, workers, workers.values()))
            emit(Usage(self.usage, self._client.dashboard_link))


def _usage(address: str, worker: dict[str, Any]) -> WorkerUsage:
    metrics = worker.get("metrics", {})
    spilled = metrics.get("spilled_bytes", {})
    return WorkerUsage(
        address, metrics.get("cpu"), metrics.get("memory"), worker.get("memory_limit"), spilled.get("disk")
    )
