"""Workers of a Dask cluster as a session sees them: they come, go, fall silent, and are restarted."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import Any

from siftline.errors import ClusterError

AGAIN = "run the same command again: finished chunks are kept"
_COUNT_SECONDS = 1.0
_LOST_AFTER_SECONDS = 60.0
_RESTART_SECONDS = 30.0
# For a worker that ends by itself; `Client.restart_workers` would wait for seconds.
_GRACE_SECONDS = 1.0


class DaskWorkers:
    """Workers of a client's cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._threads: dict[str, int] = {}
        self._counted = -math.inf
        self._lost_since: float | None = None
        self._heard: dict[str, tuple[float, float]] = {}
        self._restarts: list[threading.Thread] = []

    @property
    def threads(self) -> dict[str, int]:
        """Threads of each worker, by address; at most a second old."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_SECONDS:
            self._threads, self._counted = self._client.nthreads(), now
        return self._threads

    def live(self) -> dict[str, Any]:
        """Return what is known of each worker; raise after a minute without any: Dask would wait forever."""
        if self._client.status not in ("running", "connecting"):
            raise ClusterError("the Dask scheduler is gone", AGAIN)
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        now = time.monotonic()
        self._lost_since = None if workers else self._lost_since or now
        if self._lost_since is not None and now - self._lost_since > _LOST_AFTER_SECONDS:
            problem = f"the Dask cluster has had no worker for {_LOST_AFTER_SECONDS:g} s"
            raise ClusterError(problem, f"start workers and {AGAIN}")
        return workers

    def silent(self, workers: dict[str, Any], seconds: float) -> list[str]:
        """Return those of the live workers that have not been heard for some seconds."""
        now = time.monotonic()
        for worker, one in workers.items():
            # By changes of the scheduler's clock, which may differ from this one.
            if worker not in self._heard or self._heard[worker][0] != one["last_seen"]:
                self._heard[worker] = (one["last_seen"], now)
        return [worker for worker in workers if now - self._heard[worker][1] > seconds]

    def restart_hung(self, worker: str) -> ClusterError | None:
        """Restart a worker that hangs; return an error if there is no nanny to do so."""
        self._heard.pop(worker, None)  # its restart takes a while
        known = self._client.scheduler_info(n_workers=-1)["workers"].get(worker)
        if known is not None and not known.get("nanny"):
            problem = f"worker {worker} hangs, and has no nanny that could restart it"
            return ClusterError(problem, f"end it, start workers with a nanny (Dask's default), and {AGAIN}")
        self.restart(worker)
        return None

    def restart(self, worker: str) -> None:
        """Have its nanny kill a worker and start it again, in the background."""

        def restart() -> None:
            with suppress(KeyError, TimeoutError, OSError):  # it is gone already
                self._client.run(_kill, workers=[worker], nanny=True)

        thread = threading.Thread(target=restart, name="siftline-restart", daemon=True)
        self._restarts.append(thread)
        thread.start()

    def await_restarts(self) -> None:
        """Wait until restarted workers have left the work that they had."""
        for thread in self._restarts:
            thread.join(_RESTART_SECONDS)


async def _kill(dask_worker: Any) -> None:
    """Kill the worker of a nanny, which then starts another. Runs in the nanny's process."""
    await dask_worker.kill(timeout=_GRACE_SECONDS)
