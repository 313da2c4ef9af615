"""Execution on a Dask cluster: a bounded number of bundles in flight, answered by events."""

from __future__ import annotations

import itertools
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import Any, Generic

from siftline.engine.attempt import MORE_MEMORY, attempt_all
from siftline.engine.base import USAGE_SECONDS, Answer, R, Session, T
from siftline.errors import ChunkTimeout, ClusterError, SiftlineError, WorkerLost
from siftline.progress import Usage, WorkerUsage, emit

_WINDOW_PER_SLOT = 8
_MIN_WINDOW = 32
_WINDOW_SECONDS = 1.0
_LOST_AFTER_SECONDS = 60.0
_AGAIN = "run the same command again: finished chunks are kept"


@dataclass(frozen=True)
class DaskExecutor:
    """Runs items on a Dask cluster; `connected` returns its client, after a wait while the cluster starts."""

    connected: Callable[[], Any]

    @property
    def client(self) -> Any:
        """Dask's client, connected to a scheduler with at least one worker."""
        return self.connected()

    @property
    def dashboard(self) -> str | None:
        """Address of the cluster's dashboard."""
        address: str | None = self.client.dashboard_link
        return address

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        """Open a session on the workers."""
        return closing(_DaskSession(self.client, function, bundle, timeout_seconds))


@dataclass
class _Sent(Generic[T]):
    """A bundle in flight; `begun` holds when and where a worker took it up."""

    items: tuple[T, ...]
    future: Any = None
    begun: tuple[float, str] | None = None


class _DaskSession(Generic[T, R]):
    def __init__(
        self, client: Any, function: Callable[[T], R], bundle: int, timeout_seconds: float | None
    ) -> None:
        self._client = client
        self._function = function
        self._bundle = bundle
        self._timeout = timeout_seconds
        self._name = f"{function.__name__}-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._done: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        self._sent: dict[str, _Sent[T]] = {}
        self._lost_since: float | None = None
        self._window = (0, -math.inf)
        self._heard: dict[str, tuple[float, float]] = {}
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._next_usage = -math.inf
        client.subscribe_topic(self._name, self._take_event)

    def close(self) -> None:
        if self._sent:
            futures = [sent.future for sent in self._sent.values() if sent.future is not None]
            self._client.cancel(futures, force=True)
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._name)

    @property
    def room(self) -> int:
        most, since = self._window
        now = time.monotonic()
        if now - since >= _WINDOW_SECONDS:  # workers come and go
            most = max(_MIN_WINDOW, _WINDOW_PER_SLOT * sum(self._client.nthreads().values()))
            self._window = (most, now)
        return max(0, most - len(self._sent)) * self._bundle

    def submit(self, items: tuple[T, ...]) -> None:
        bundles = [items[start : start + self._bundle] for start in range(0, len(items), self._bundle)]
        sent = {f"{self._name}-{next(self._numbers)}": _Sent(bundle) for bundle in bundles}
        # Before they are sent, because a worker may begin at once.
        self._sent |= sent
        arguments = {"function": self._function, "topic": self._name}
        futures = self._client.map(attempt_all, bundles, key=list(sent), pure=False, **arguments)
        for one, future in zip(sent.values(), futures, strict=True):
            one.future = future
            future.add_done_callback(lambda done: self._done.put((done.key, None)))

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        finished = self._finished(seconds)
        if not finished:
            self._note_silent(self._live_workers())
        answers = [answer for sent, message in finished for answer in self._answers(sent, message)]
        self._report()
        return answers + self._overdue()

    def _take_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """Note that a worker begins a bundle, logs a line or answers. Runs in Dask's own thread."""
        message = event[1]
        if "line" in message:
            self._lines.put(message["line"])
            return
        sent = self._sent.get(message["key"])
        if sent is None:
            return
        if "answers" not in message:
            sent.begun = (time.monotonic(), message["worker"])
            return
        self._done.put((message["key"], message["answers"]))
        if sent.future is not None:
            # Or Dask would do the work again if it lost the worker now.
            sent.future.release()

    def _finished(self, seconds: float) -> list[tuple[_Sent[T], bytes | None]]:
        """Take all bundles that are done, waiting for the first."""
        finished = []
        with suppress(queue.Empty):
            finished.append(self._done.get(timeout=seconds))
            while True:
                finished.append(self._done.get_nowait())
        # A bundle ends here twice, by its answers and by Dask; or it was given up meanwhile.
        return [(self._sent.pop(key), answers) for key, answers in finished if key in self._sent]

    def _report(self) -> None:
        """Emit the workers' lines, and their usage now and then."""
        from distributed.protocol.pickle import loads

        with suppress(queue.Empty):
            while True:
                emit(loads(self._lines.get_nowait()))
        now = time.monotonic()
        if now >= self._next_usage and self._client.status == "running":
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            self._next_usage = now + USAGE_SECONDS * max(1, len(workers) / 100)
            emit(Usage(tuple(map(_usage, workers, workers.values())), self._client.dashboard_link))

    def _live_workers(self) -> dict[str, Any]:
        """Return the workers, by address; raise after a minute without any, as Dask would wait forever."""
        if self._client.status not in ("running", "connecting"):
            raise ClusterError("the Dask scheduler is gone", _AGAIN)
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        if workers:
            self._lost_since = None
            return workers
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if now - self._lost_since > _LOST_AFTER_SECONDS:
            problem = f"the Dask cluster has had no worker for {_LOST_AFTER_SECONDS:g} s"
            raise ClusterError(problem, f"start workers and {_AGAIN}")
        return workers

    def _note_silent(self, workers: dict[str, Any]) -> None:
        """Take a bundle for begun at a worker that is silent since: what it said last may be lost."""
        if self._timeout is None:
            return
        now = time.monotonic()
        for worker, one in workers.items():
            # By changes of the scheduler's clock, which may differ from this one.
            if worker not in self._heard or self._heard[worker][0] != one["last_seen"]:
                self._heard[worker] = (one["last_seen"], now)
        silent = [worker for worker in workers if now - self._heard[worker][1] > self._timeout]
        for worker, keys in self._client.processing(silent).items() if silent else ():
            mine = set(keys)
            held = [sent for key, sent in self._sent.items() if key in mine]
            if held and all(sent.begun is None for sent in held):
                held[0].begun = (-math.inf, worker)

    def _answers(self, sent: _Sent[T], answers: bytes | None) -> list[Answer[T, R]]:
        from distributed.protocol.pickle import loads

        if answers is None:
            error = _error(sent.future)
            return [Answer(item, None, error) for item in sent.items]
        return [Answer(item, *answer) for item, answer in zip(sent.items, loads(answers), strict=True)]

    def _overdue(self) -> list[Answer[T, R]]:
        """Give up the bundles that have taken too long, and restart their workers."""
        if self._timeout is None:
            return []
        overdue: list[Answer[T, R]] = []
        now = time.monotonic()
        for key, sent in list(self._sent.items()):
            if sent.begun is None or now - sent.begun[0] <= self._timeout * len(sent.items):
                continue
            del self._sent[key]
            self._client.cancel([sent.future], force=True)
            self._heard.pop(sent.begun[1], None)  # its restart takes a while
            error = self._timed_out(sent.begun[1])
            overdue += [Answer(item, None, error) for item in sent.items]
        return overdue

    def _timed_out(self, worker: str) -> SiftlineError:
        known = self._client.scheduler_info(n_workers=-1)["workers"].get(worker)
        if known is not None and not known.get("nanny"):
            problem = f"worker {worker} hangs, and has no nanny that could restart it"
            return ClusterError(problem, f"end it, start workers with a nanny (Dask's default), and {_AGAIN}")

        def restart() -> None:
            with suppress(KeyError, TimeoutError, OSError):  # it is gone already
                self._client.restart_workers([worker], timeout=30, raise_for_error=False)

        # In the background, because killing a hung worker takes seconds.
        threading.Thread(target=restart, name="siftline-restart", daemon=True).start()
        problem = f"no result after {self._timeout:g} s; the worker was restarted"
        return ChunkTimeout(problem, "raise chunking.timeout_seconds, or cut smaller chunks (chunking.rows)")


def _usage(address: str, worker: dict[str, Any]) -> WorkerUsage:
    metrics = worker.get("metrics", {})
    spilled = metrics.get("spilled_bytes", {})
    return WorkerUsage(
        address, metrics.get("cpu"), metrics.get("memory"), worker.get("memory_limit"), spilled.get("disk")
    )


def _error(future: Any) -> Exception:
    """Error of a bundle that ended without answers."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        return ClusterError("the Dask scheduler lost the work", _AGAIN)
    error: Exception = future.exception()
    if isinstance(error, KilledWorker):
        return WorkerLost("the worker was lost while it had this chunk", MORE_MEMORY)
    return error
