"""A session on a Dask cluster: a bounded number of bundles in flight, answered by events."""

from __future__ import annotations

import itertools
import math
import queue
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic

from siftline.engine.attempt import AttemptAll, Bundle, overdue, worker_lost
from siftline.engine.base import Answer, R, T, report_incident
from siftline.engine.dask_workers import AGAIN, DaskWorkers
from siftline.engine.in_flight import Sent
from siftline.engine.stragglers import Pace
from siftline.engine.worker_reports import WorkerReports
from siftline.errors import ClusterError
from siftline.progress import WorkerUsage

_WINDOW_PER_SLOT = 8
_MIN_WINDOW = 32
# Between two looks for stragglers, of which each goes through all in flight.
_LOOK_SECONDS = 0.5


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
        self._sent: dict[str, Sent[T, R]] = {}
        self._shared_slots = slots
        self._ours = ours
        self._window, self._busy = _WINDOW_PER_SLOT, 0
        self.late, self._next_look = 0, -math.inf
        self._begun = 0
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
        self._send([Sent(bundle) for bundle in bundles])

    def _send(self, bundles: list[Sent[T, R]], workers: list[str] | None = None) -> list[str]:
        """Send bundles to any workers, or to some if those live, and return their keys."""
        sent = {f"{self._name}-{next(self._numbers)}": bundle for bundle in bundles}
        # Before they are sent, because a worker may begin at once.
        self._sent |= sent
        futures = self._client.map(
            AttemptAll(self._function, self._name),
            [Bundle(bundle.items) for bundle in bundles],
            key=list(sent),
            pure=False,
            workers=workers,
            allow_other_workers=workers is not None,
        )
        for one, future in zip(sent.values(), futures, strict=True):
            one.future = future
            future.add_done_callback(self._take_end)
        return list(sent)

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        """Return the answers that have arrived."""
        answers: list[Answer[T, R]] = []
        arrived = self._arrived(seconds)
        for key, message in arrived:
            # A bundle ends by its last answer and by Dask; or it was given up meanwhile.
            if key in self._sent:
                answers += self._answers(key, self._sent[key], message)
        if not arrived:
            self._workers.check(self._begun)
        self._reports.emit()
        answers += self._overdue()
        self._repeat_stragglers()
        return answers

    def _take_end(self, future: Any) -> None:
        """Note that a bundle has failed; the answers of others come as events."""
        if future.status != "finished":
            self._done.put((future.key, None))

    def _take_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """Note that a worker begins an item, logs a line or answers. Runs in Dask's own thread."""
        message = event[1]
        if "line" in message:
            self._reports.take(message["line"])
            return
        sent = self._sent.get(message["key"])
        if sent is None:
            return
        if "begins" in message:
            self._begun += 1
            sent.begun, sent.slots = (time.monotonic(), message["worker"]), message["begins"]
        elif sent.future is not None:
            # Or Dask would do the work again if it lost the worker now.
            sent.future.release()
        if "answer" in message:
            self._done.put((message["key"], message["answer"]))

    def _arrived(self, seconds: float) -> list[tuple[str, bytes | None]]:
        """Take all messages that are there, waiting for the first."""
        arrived = []
        with suppress(queue.Empty):
            arrived.append(self._done.get(timeout=seconds))
            while True:
                arrived.append(self._done.get_nowait())
        return arrived

    def _answers(self, key: str, sent: Sent[T, R], message: bytes | None) -> list[Answer[T, R]]:
        """Return new answers of a bundle; none while its other start goes on, or may still succeed."""
        from distributed.protocol.pickle import loads

        if message is None:
            new = sent.failed(_error(sent.future), sent.began)
        else:
            new = [Answer(sent.present, *loads(message))]
            self._pace.finished(new[0].seconds or 0.0, sent.size)
        sent.answered += len(new)
        sent.kept += new
        over = sent.answered == len(sent.items)
        if over:
            del self._sent[key]
            if any(answer.error is not None for answer in sent.kept) and self._has_twin(sent):
                return []
            if sent.twin in self._sent:
                self._drop(sent.twin)
        elif sent.twin in self._sent:
            return []
        answers, sent.kept = sent.kept, []
        return answers

    def _repeat_stragglers(self) -> None:
        """Start items again that take far longer than their peers, once workers are idle."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        idle, self.late = self._slots - len(self._sent), 0
        for key, sent in list(self._sent.items()):
            if sent.begun is None or sent.repeated:
                continue
            if not self._pace.is_straggler(sent.seconds, sent.size):
                continue
            others = [worker for worker in self._workers.threads if worker != sent.begun[1]]
            if not others or idle <= 0:
                self.late += 1
            else:
                left = sent.items[sent.answered :]
                (sent.twin,) = self._send([Sent(left, twin=key, repeated=True)], others)
                sent.repeated = True
                idle -= 1
                text = f"takes {sent.seconds:.0f} s, far longer than its peers; another worker starts it, too"
                report_incident("repeated", sent.present, self._function, text)

    def _has_twin(self, sent: Sent[T, R]) -> bool:
        """Return True if the other start of a bundle goes on; it is the only one from now on."""
        twin = self._sent.get(sent.twin or "")
        if twin is not None:
            twin.twin = None
        return twin is not None

    def _drop(self, key: str) -> None:
        """Give up the slower of two starts, and free its worker, which nothing else can interrupt."""
        sent = self._give_up(key)
        if sent.begun is None or self._workers.threads.get(sent.begun[1]) != 1:
            return
        self._send_elsewhere(sent.begun[1])
        if self._ours:
            self._workers.restart(sent.begun[1])

    def _send_elsewhere(self, worker: str) -> None:
        """Send what waits at an occupied worker to others; Dask takes the worker for idle."""
        others = [other for other in self._workers.threads if other != worker]
        keys = self._workers.keys_at(worker)
        waiting = [key for key in keys if key in self._sent and self._sent[key].waits]
        if waiting and others:
            self._send([Sent(self._give_up(key).items) for key in waiting], others)

    def _give_up(self, key: str) -> Sent[T, R]:
        sent = self._sent.pop(key)
        self._client.cancel([sent.future], force=True)
        return sent

    def _overdue(self) -> list[Answer[T, R]]:
        """Give up the bundles whose present item takes too long, and restart their workers."""
        if self._timeout is None:
            return []
        late = {
            key: sent.begun[1]
            for key, sent in self._sent.items()
            if sent.begun is not None and sent.seconds > self._timeout
        }
        waiting = {key for key, sent in self._sent.items() if sent.begun is None}
        late |= self._workers.stuck(waiting, self._timeout)
        given_up: list[Answer[T, R]] = []
        for key, worker in late.items():
            sent = self._give_up(key)
            error = self._workers.restart_hung(worker) or overdue(self._timeout)
            if not self._has_twin(sent):
                given_up += sent.kept + sent.failed(error, sent.began)
        return given_up


def _error(future: Any) -> Exception:
    """Error of a bundle that ended without answers."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        return ClusterError("the Dask scheduler lost the work", AGAIN)
    error: Exception = future.exception()
    if isinstance(error, KilledWorker):
        return worker_lost()
    return error
