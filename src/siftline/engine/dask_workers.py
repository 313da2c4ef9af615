"""Workers of a Dask cluster as a session sees them: they come, go, fall silent, and are restarted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from siftline.errors import ClusterError

AGAIN = "run the same command again: finished chunks are kept"
# Of the keys of imports ahead of the work.
WARM_UP = "warm-up-"
_COUNT_SECONDS = 1.0
_ANSWER_SECONDS = 30.0
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
        self._idle: dict[str, tuple[str, float]] = {}
        self._asked = -math.inf
        self._begun, self._ends = -1, 0
        self._restarts: list[threading.Thread] = []

    @property
    def threads(self) -> dict[str, int]:
        """Threads of each worker, by address; at most a second old."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_SECONDS:
            self._threads, self._counted = ask(self._client, self._client.scheduler.ncores), now
        return self._threads

    def check(self, begun: int) -> None:
        """Raise if the scheduler is gone, or workers: Dask would wait forever.

        `begun` is the number of items that have begun.
        """
        from siftline.engine.nannies import check_ends, ends_of

        if self._client.status not in ("running", "connecting"):
            raise ClusterError("the Dask scheduler is gone", AGAIN)
        now = time.monotonic()
        self._lost_since = None if self.threads else self._lost_since or now
        if self._lost_since is not None and now - self._lost_since > _LOST_AFTER_SECONDS:
            problem = f"the Dask cluster has had no worker for {_LOST_AFTER_SECONDS:g} s"
            raise ClusterError(problem, f"start workers and {AGAIN}")
        ends = ends_of(self._client.cluster)
        if begun != self._begun:
            self._begun, self._ends = begun, ends
        check_ends(self._client.cluster, ends - self._ends)

    def stuck(self, waiting: Collection[str], seconds: float) -> dict[str, str]:
        """Return keys waiting that long at a worker with a free slot, and that worker.

        It is frozen: a worker that lives says at once that it begins.
        """
        now = time.monotonic()
        if not waiting or now - self._asked < _COUNT_SECONDS:
            return {}
        self._asked = now
        idle = {}
        for worker, keys in ask(self._client, self._client.scheduler.processing).items():
            first = next((key for key in keys if key in waiting), None)
            busy = sum(key not in waiting and not key.startswith(WARM_UP) for key in keys)
            if first is not None and busy < self.threads.get(worker, 0):
                since = self._idle.get(worker, ("", now))
                idle[worker] = (first, since[1] if since[0] == first else now)
        self._idle = idle
        return {key: worker for worker, (key, since) in idle.items() if now - since > seconds}

    def keys_at(self, worker: str) -> list[str]:
        """Return the keys that a worker has been given."""
        return list(ask(self._client, self._client.scheduler.processing, workers=[worker]).get(worker, ()))

    def restart_hung(self, worker: str) -> ClusterError | None:
        """Restart a worker that hangs; return an error if there is no nanny to do so."""
        known = workers_of(self._client).get(worker)
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
        deadline = time.monotonic() + _RESTART_SECONDS
        for thread in self._restarts:
            thread.join(max(0.0, deadline - time.monotonic()))


def ask(client: Any, question: Callable[..., Any], **details: Any) -> Any:
    """Return the scheduler's answer; raise if there is none: Dask would wait forever."""
    try:
        return client.sync(question, **details, callback_timeout=_ANSWER_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ClusterError("the Dask scheduler does not answer", AGAIN) from error


def workers_of(client: Any) -> dict[str, Any]:
    """Return what the scheduler knows of each worker, by address."""
    workers: dict[str, Any] = ask(client, client.scheduler.identity, n_workers=-1)["workers"]
    return workers


async def _kill(dask_worker: Any) -> None:
    """Kill the worker of a nanny, which then starts another. Runs in the nanny's process."""
    await dask_worker.kill(timeout=_GRACE_SECONDS)
