"""What follows when an item fails: another attempt, later, alone or in halves; or the end of it.

The kind of fault decides (see `siftline.errors`). A delay blocks nobody: the item waits here, others run.
After the death of a worker everything that it had is suspect. Suspects are tried one at a time, with nothing
else running, so that the one that kills its workers never takes another down with it.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from siftline.config.batch import RetriesConfig
from siftline.engine.executor import Executor, Later, Outcome
from siftline.errors import Cancelled, OutOfMemory, SiftlineError
from siftline.progress import Incident, report
from siftline.signals import Stop

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Settled(Generic[T, R]):
    """What became of an item in the end, after how many attempts."""

    item: T
    value: R | None
    error: SiftlineError | None
    attempts: int

    def result(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


@dataclass(frozen=True)
class _Attempt(Generic[T]):
    """An item's next attempt: its number, and whether it is made with nothing else running."""

    item: T
    number: int = 1
    alone: bool = False


def run_with_retries(
    executor: Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    retries: RetriesConfig,
    *,
    split: Callable[[T], T | None] = lambda item: None,
    bundle: int = 1,
    timeout_seconds: float | None = None,
    stop: Stop | None = None,
) -> Iterator[Settled[T, R]]:
    """Run a function on every item, with further attempts where that may help, and give what came of each.

    Parameters
    ----------
    executor : Executor
        Who runs it.
    function : callable
        Importable on the workers; harmless to run twice.
    items : iterable
        As `Executor.run`.
    retries : RetriesConfig
        How often, and with which delays.
    split : callable, optional
        Gives an item that does the same in less memory, or None where there is none.
    bundle, timeout_seconds
        As `Executor.run`.
    stop : Stop, optional
        Once requested, nothing is begun any more, and what runs gets a grace period.

    Raises
    ------
    Cancelled
        When a stop was requested, after all that could be had was given.
    ClusterError
        As `Executor.run`.
    """
    attempts: _Attempts[T, R] = _Attempts(items, retries, split, stop or Stop())
    for outcome in executor.run(function, attempts, bundle, timeout_seconds):
        settled = attempts.settle(outcome)
        if settled is not None:
            yield settled


def attempt_again(what: object, action: Callable[[], R], retries: RetriesConfig) -> R:
    """Do something here, and again after a delay if it fails for what may pass.

    Raises
    ------
    SiftlineError
        The last error, or at once one that does not pass.
    """
    for number in itertools.count(1):
        try:
            return action()
        except SiftlineError as error:
            if error.fault != "transient" or number >= retries.attempts:
                raise
            seconds = delay_after(retries, number)
            report(Incident("retried", f"{what}: {error.problem}; attempt {number + 1} in {seconds:.1f} s"))
            time.sleep(seconds)
    raise AssertionError("counting has no end")


class _Attempts(Generic[T, R]):
    """The attempts to make, as an iterator that grows while it is read."""

    def __init__(
        self, items: Iterable[T], retries: RetriesConfig, split: Callable[[T], T | None], stop: Stop
    ) -> None:
        self._items = iter(items)
        self._retries = retries
        self._split = split
        self._stop = stop
        self._running: list[_Attempt[T]] = []
        self._delayed: list[tuple[float, int, _Attempt[T]]] = []
        self._suspects: deque[_Attempt[T]] = deque()
        self._order = itertools.count()

    def __iter__(self) -> Iterator[T | Later]:
        return self

    def __next__(self) -> T | Later:
        if self._stop.requested:
            if not self._running or self._stop.overdue:
                raise Cancelled("stopped on request", "run the same command again: finished chunks are kept")
            return Later(_POLL_SECONDS)
        if self._suspects:
            if self._running:
                return Later(_POLL_SECONDS)
            return self._begin(self._suspects.popleft())
        if any(attempt.alone for attempt in self._running):
            return Later(_POLL_SECONDS)
        return self._next()

    def _next(self) -> T | Later:
        now = time.monotonic()
        if self._delayed and self._delayed[0][0] <= now:
            attempt = heapq.heappop(self._delayed)[2]
            if not (attempt.alone and self._running):
                return self._begin(attempt)
            self._suspects.append(attempt)
            return Later(_POLL_SECONDS)
        for item in self._items:
            return self._begin(_Attempt(item))
        if self._delayed:
            return Later(self._delayed[0][0] - now)
        if self._running:
            return Later(_POLL_SECONDS)
        raise StopIteration

    def _begin(self, attempt: _Attempt[T]) -> T:
        self._running.append(attempt)
        return attempt.item

    def settle(self, outcome: Outcome[T, R]) -> Settled[T, R] | None:
        """Take an outcome; None when another attempt is made, or would be but for a stop."""
        # By identity: two items may be equal, and even be the same object.
        place = next(i for i, attempt in enumerate(self._running) if attempt.item is outcome.item)
        attempt = self._running.pop(place)
        error = outcome.error
        follow = {"worker": self._suspect, "resource": self._halve, "transient": self._again}
        if error is not None and error.fault in follow:
            # What a stop leaves undone has not failed.
            error = None if self._stop.requested else follow[error.fault](attempt, error)
            if error is None:
                return None
        return Settled(outcome.item, outcome.value, error, attempt.number)

    def _again(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        if attempt.number >= self._retries.attempts:
            return error
        seconds = delay_after(self._retries, attempt.number)
        report(
            Incident(
                "retried", f"{attempt.item}: {error.problem}; attempt {attempt.number + 1} in {seconds:.1f} s"
            )
        )
        later = replace(attempt, number=attempt.number + 1)
        heapq.heappush(self._delayed, (time.monotonic() + seconds, next(self._order), later))
        return None

    def _halve(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        smaller = self._split(attempt.item)
        if smaller is None:
            return error
        report(Incident("split", f"{attempt.item}: {error.problem}; it is done in halves"))
        # Alone, because what it lacks may be what the others take.
        self._suspects.append(_Attempt(smaller, attempt.number + 1, alone=True))
        return None

    def _suspect(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        if not attempt.alone:
            report(Incident("worker lost", f"{attempt.item}: {error.problem}; it is tried alone"))
            self._suspects.append(replace(attempt, alone=True))
            return None
        guilty = OutOfMemory("alone on the cluster, it killed its worker", error.remedy)
        if self._halve(attempt, guilty) is None:
            return None
        if attempt.number >= self._retries.attempts:
            return guilty
        report(Incident("worker lost", f"{attempt.item}: {guilty.problem}; attempt {attempt.number + 1}"))
        self._suspects.append(replace(attempt, number=attempt.number + 1))
        return None


def delay_after(retries: RetriesConfig, number: int) -> float:
    """Seconds between an attempt, the first being number 1, and the next."""
    # Beyond 2**64 the longest delay holds anyway, and floats have an end.
    seconds = min(retries.max_delay_seconds, retries.delay_seconds * retries.backoff ** min(number - 1, 64))
    share = random.uniform(1 - retries.jitter, 1 + retries.jitter)  # noqa: S311  not a secret
    return min(retries.max_delay_seconds, seconds * share)
