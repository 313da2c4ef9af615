"""A session on a Dask cluster: a bounded number of bundles in flight, answered by events."""

from __future__ import annotations

import itertools
import math
import queue
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic

from siftline.engine.attempt import MORE_MEMORY, attempt_all
from siftline.engine.base import Answer, R, T
from siftline.engine.dask_workers import AGAIN, DaskWorkers
from siftline.engine.stragglers import Pace
from siftline.engine.worker_reports import WorkerReports
from siftline.errors import ChunkTimeout, ClusterError, WorkerLost
from siftline.progress import Incident, WorkerUsage, emit

_WINDOW_PER_SLOT = 8
_MIN_WINDOW = 32
# Between two looks for stragglers, of which each goes through all in flight.
_LOOK_SECONDS = 0.5


@dataclass
class _Sent(Generic[T]):
    """A bundle in flight: when and where a worker took it up, and the key of its other start, if any.

    `repeated` ones are not started again.
    """

    items: tuple[T, ...]
    future: Any = None
    begun: tuple[float, str] | None = None
    twin: str | None = None
    repeated: bool = False

    @property
    def size(self) -> int:
        return sum(getattr(item, "rows", 1) for item in self.items)

    @property
    def seconds(self) -> float:
        """Seconds since a worker took it up; 0 before, infinity if that was at an unknown time."""
        return time.monotonic() - self.begun[0] if self.begun is not None else 0.0


class DaskSession(Generic[T, R]):
    """A `siftline.engine.base.Session` on a cluster; `ours` if no other job uses its workers.

    `slots` bounds the items of this job at once on a cluster that it shares.
    """

    def __init__(
        self,
        client: Any,
        function: Callable[[T], R],
        bundle: int,
        timeout_seconds: float | None,
        slots: int | None = None,
        ours: bool = False,
    ) -> None:
        self._client = client
        self._function = function
        self._bundle = bundle
        self._timeout = timeout_seconds
        self._name = f"{function.__name__}-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._done: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        self._sent: dict[str, _Sent[T]] = {}
        self._shared_slots = slots
        self._ours = ours
        self._window, self._busy = _WINDOW_PER_SLOT, 0
        self.late, self._next_look = 0, -math.inf
        self._pace = Pace()
        self._workers = DaskWorkers(client)
        self._reports = WorkerReports(client)
        client.subscribe_topic(self._name, self._take_event)

    def close(self) -> None:
        """Cancel what is in flight."""
        if self._sent:
            futures = [sent.future for sent in self._sent.values() if sent.future is not None]
            self._client.cancel(futures, force=True)
        self._workers.await_restarts()
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._name)

    @property
    def room(self) -> int:
        """Number of items that may be submitted now."""
        most = self._window * self._slots
        if self._window == _WINDOW_PER_SLOT and self._shared_slots is None:
            most = max(_MIN_WINDOW, most)
        if self._busy:
            most = min(most, self._busy * len(self._workers.threads))
        return max(0, max(1, most) - len(self._sent)) * self._bundle

    @property
    def _slots(self) -> int:
        """Bundles that the workers can do at once for this job."""
        slots = sum(self._workers.threads.values())
        return slots if self._shared_slots is None else min(slots, self._shared_slots)

    def usage(self) -> tuple[WorkerUsage, ...]:
        """Return the last known usage of the workers."""
        return self._reports.usage

    def narrow(self, window: int, busy: int) -> None:
        """Bound the bundles in flight: for each slot, and for each worker if `busy` is not 0."""
        self._window, self._busy = window, busy

    def submit(self, items: tuple[T, ...]) -> None:
        """Send items in bundles."""
        bundles = [items[start : start + self._bundle] for start in range(0, len(items), self._bundle)]
        self._send([_Sent(bundle) for bundle in bundles])

    def _send(self, bundles: list[_Sent[T]], workers: list[str] | None = None) -> list[str]:
        """Send bundles to any workers, or to some if those live, and return their keys."""
        sent = {f"{self._name}-{next(self._numbers)}": bundle for bundle in bundles}
        # Before they are sent, because a worker may begin at once.
        self._sent |= sent
        futures = self._client.map(
            attempt_all,
            [bundle.items for bundle in bundles],
            key=list(sent),
            pure=False,
            workers=workers,
            allow_other_workers=workers is not None,
            function=self._function,
            topic=self._name,
        )
        for one, future in zip(sent.values(), futures, strict=True):
            one.future = future
            future.add_done_callback(lambda done: self._done.put((done.key, None)))
        return list(sent)

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        """Return the answers that have arrived."""
        finished = self._finished(seconds)
        if not finished:
            self._note_silent(self._workers.live())
        answers = [answer for sent, message in finished for answer in self._answers(sent, message)]
        self._reports.emit()
        answers += self._overdue()
        self._repeat_stragglers()
        return answers

    def _take_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """Note that a worker begins a bundle, logs a line or answers. Runs in Dask's own thread."""
        message = event[1]
        if "line" in message:
            self._reports.take(message["line"])
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

    def _answers(self, sent: _Sent[T], message: bytes | None) -> list[Answer[T, R]]:
        """Return the answers of a bundle; none if it failed, and its other start may still succeed."""
        from distributed.protocol.pickle import loads

        if message is None:
            error = _error(sent.future)
            answers = [Answer[T, R](item, None, error) for item in sent.items]
        else:
            answers = [Answer(item, *one) for item, one in zip(sent.items, loads(message), strict=True)]
        failed = any(answer.error is not None for answer in answers)
        if failed and self._has_twin(sent):
            return []
        if sent.twin in self._sent:
            self._drop(sent.twin)
        if not failed:
            self._pace.finished(sum(answer.seconds or 0.0 for answer in answers), sent.size)
        return answers

    def _repeat_stragglers(self) -> None:
        """Start bundles again that take far longer than their peers, once workers are idle."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        idle, self.late = self._slots - len(self._sent), 0
        for key, sent in list(self._sent.items()):
            if sent.begun is None or sent.repeated or not self._pace.is_straggler(sent.seconds, sent.size):
                continue
            others = [worker for worker in self._workers.threads if worker != sent.begun[1]]
            if not others or idle <= 0:
                self.late += 1
            else:
                (sent.twin,) = self._send([_Sent(sent.items, twin=key, repeated=True)], others)
                sent.repeated = True
                idle -= 1
                item, long = sent.items[0], f"{sent.seconds:.0f} s, far longer than its peers"
                text = f"{item}: takes {long}; another worker starts it, too"
                emit(Incident("repeated", text, getattr(item, "number", None)))

    def _has_twin(self, sent: _Sent[T]) -> bool:
        """Return True if the other start of a bundle goes on; it is the only one from now on."""
        twin = self._sent.get(sent.twin or "")
        if twin is not None:
            twin.twin = None
        return twin is not None

    def _drop(self, key: str) -> None:
        """Give up the slower of two starts, and free its worker, which nothing else can interrupt."""
        sent = self._give_up(key)
        if self._ours and sent.begun is not None and self._workers.threads.get(sent.begun[1]) == 1:
            self._workers.restart(sent.begun[1])

    def _give_up(self, key: str) -> _Sent[T]:
        sent = self._sent.pop(key)
        self._client.cancel([sent.future], force=True)
        return sent

    def _note_silent(self, workers: dict[str, Any]) -> None:
        """Take a bundle for begun at a worker that is silent since: what it said last may be lost."""
        silent = self._workers.silent(workers, self._timeout) if self._timeout is not None else []
        for worker, keys in self._client.processing(silent).items() if silent else ():
            mine = set(keys)
            held = [sent for key, sent in self._sent.items() if key in mine]
            if held and all(sent.begun is None for sent in held):
                held[0].begun = (-math.inf, worker)

    def _overdue(self) -> list[Answer[T, R]]:
        """Give up the bundles that have taken too long, and restart their workers."""
        overdue: list[Answer[T, R]] = []
        for key, sent in list(self._sent.items()):
            if self._timeout is None or sent.begun is None or sent.seconds <= self._timeout * len(sent.items):
                continue
            self._give_up(key)
            error = self._workers.restart_hung(sent.begun[1]) or ChunkTimeout(
                f"no result after {self._timeout:g} s; the worker was restarted",
                "raise chunking.timeout_seconds, or cut smaller chunks (chunking.rows)",
            )
            if not self._has_twin(sent):
                overdue += [Answer(item, None, error) for item in sent.items]
        return overdue


def _error(future: Any) -> Exception:
    """Error of a bundle that ended without answers."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        return ClusterError("the Dask scheduler lost the work", AGAIN)
    error: Exception = future.exception()
    if isinstance(error, KilledWorker):
        return WorkerLost("the worker was lost while it had this chunk", MORE_MEMORY)
    return error
