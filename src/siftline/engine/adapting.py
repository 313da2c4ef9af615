"""Adapting a running job: samples of its workers, decisions by `siftline.engine.adaptation`, carried out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from siftline.engine.adaptation import Decision, Load, Settings, adapt
from siftline.engine.base import Executor
from siftline.progress import Incident, WorkerUsage, counted, emit

ADAPTED = "adapted"


class Narrowed(Protocol):
    """The part of a session that an adaptation sees and changes."""

    @property
    def late(self) -> int:
        """Number of stragglers that wait for an idle worker."""

    def usage(self) -> tuple[WorkerUsage, ...]:
        """Return the last known usage of the workers."""

    def narrow(self, window: int, busy: int) -> None:
        """Bound the chunks in flight: for each slot, and for each worker if `busy` is not 0."""


class Adapting:
    """Adapts a job as its memory and its backlog require; results are the same for any decision.

    Parameters
    ----------
    total : int
        Number of items.
    window : int
        Items in flight for each slot without pressure.
    """

    def __init__(
        self,
        executor: Executor,
        total: int,
        window: int = 8,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._seconds = seconds
        self._clock = clock
        self._widest = window
        self._settings = Settings(window=window, workers=executor.bounds[0])
        self._looked = clock()
        self.left = total

    @property
    def halvings(self) -> int:
        """How many times the batches of new items are halved."""
        return self._settings.halvings

    def look(self, session: Narrowed) -> None:
        """Take a sample, unless the last one is too new, and act on it."""
        now = self._clock()
        if now - self._looked < self._seconds:
            return
        self._looked = now
        usage, (minimum, maximum) = session.usage(), self._executor.bounds
        load = Load(
            seconds=now,
            memory=max(map(_share, usage), default=0.0),
            workers=len(usage),
            threads=self._executor.threads,
            left=self.left,
            free=maximum,  # the pool is asked when it comes to that
            late=session.late,
        )
        decision = adapt(load, self._settings, self._widest, minimum, maximum)
        if decision is not None:
            self._carry_out(decision, session)

    def _carry_out(self, decision: Decision, session: Narrowed) -> None:
        before, self._settings = self._settings, decision.settings
        if decision.kind in ("scale up", "scale down"):
            workers = self._executor.scale(decision.settings.workers)
            self._settings = replace(decision.settings, workers=workers)
            if workers == before.workers:
                return  # the pool has no more, or none is idle
        session.narrow(self._settings.window, self._settings.busy)
        emit(Incident(ADAPTED, f"{_WORDS[decision.kind](self._settings)}: {decision.cause}"))


_WORDS: dict[str, Callable[[Settings], str]] = {
    "window": lambda settings: f"{counted(settings.window, 'chunk')} in flight for each slot",
    "batches": lambda settings: f"batches of 1/{2**settings.halvings} of the usual size",
    "threads": lambda settings: (
        f"{counted(settings.busy, 'chunk') if settings.busy else 'all chunks'} at once for each worker"
    ),
    "scale up": lambda settings: f"scaled up to {counted(settings.workers, 'worker')}",
    "scale down": lambda settings: f"scaled down to {counted(settings.workers, 'worker')}",
}


def _share(worker: WorkerUsage) -> float:
    return worker.memory / worker.memory_limit if worker.memory and worker.memory_limit else 0.0
