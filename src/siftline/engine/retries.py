"""Retries: another attempt after a delay, alone or in halves, by the kind of fault (`siftline.errors`).

After the death of a worker all the items that it had begun are suspect. Suspects run one at a time, with
nothing beside them, so that none takes another down.

Each start of an item is an attempt, in halves and alone, too. Not counted: items that a lost worker had not
begun, and the second start of a straggler, which is the same attempt at another place.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic

from siftline.config.batch import RetriesConfig
from siftline.engine.adapting import Adapting
from siftline.engine.base import Answer, Began, Executor, R, T, report_incident
from siftline.errors import Cancelled, OutOfMemory, SiftlineError
from siftline.system.signals import Stop

# Workers that end before they begin an item, one after the other.
_MOST_LOST = 5
# Between two looks at a cluster that starts.
_START_SECONDS = 0.01


@dataclass(frozen=True)
class Settled(Generic[T, R]):
    """Final result of an item, the number of attempts it took, and the seconds of the last one."""

    item: T
    value: R | None
    error: SiftlineError | None
    attempts: int
    seconds: float | None = None

    def result(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


@dataclass(frozen=True)
class _Attempt(Generic[T]):
    """One attempt at an item; `alone` ones run with nothing beside them.

    `lost` counts the times that its worker ended before it began.
    """

    item: T
    number: int = 1
    alone: bool = False
    lost: int = 0


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
    adapting: Adapting | None = None,
    poll_seconds: float = 0.5,
) -> Iterator[Settled[T, R]]:
    """Run a function on every item, retry where that may help, and give results as they are final.

    Items are taken as there is room, so that any number of them costs the same memory. Closing the iterator
    cancels what is in flight.

    Parameters
    ----------
    function : callable
        Importable on the workers; harmless to run twice.
    split : callable, optional
        Gives an item that does the same in less memory, or None if there is none.
    stop : Stop, optional
        Once requested, nothing more begins; after the results of running items Cancelled is raised.
    adapting : Adapting, optional
        Adapts the work to the memory and the backlog. Default: nothing is adapted.
    poll_seconds : float
        Longest wait before `stop` is checked again.
    """
    stop = stop or Stop()
    attempts: _Attempts[T, R] = _Attempts(function, items, retries, split, stop)
    _await_start(executor, stop)
    with executor.session(function, bundle, timeout_seconds) as session:
        while not stop.requested:
            if adapting is not None:
                adapting.look(session)
                attempts.halvings = adapting.halvings
            begun = attempts.begin(session.room)
            if begun:
                session.submit(begun)
            if not attempts.running and not attempts.delayed:
                return
            for settled in attempts.settle(session.wait(min(poll_seconds, attempts.seconds_to_due()))):
                if adapting is not None:
                    adapting.left -= 1
                yield settled
        while attempts.running and not stop.overdue:
            yield from attempts.settle(session.wait(poll_seconds))
    raise _cancelled()


def run_one(
    executor: Executor,
    function: Callable[[T], R],
    item: T,
    retries: RetriesConfig,
    stop: Stop | None = None,
) -> R:
    """Return a function's value for one item, retried where that may help, or raise its error."""
    (settled,) = run_with_retries(executor, function, [item], retries, stop=stop)
    return settled.result()


def _await_start(executor: Executor, stop: Stop) -> None:
    """Wait while a cluster starts; raise Cancelled if a stop is requested meanwhile."""
    started: Callable[[], bool] = getattr(executor, "started", lambda: True)
    while not started():
        if stop.requested:
            raise _cancelled()
        time.sleep(_START_SECONDS)


def _cancelled() -> Cancelled:
    return Cancelled("stopped on request", "run the same command again: finished chunks are kept")


def attempt_again(what: str, action: Callable[[], R], retries: RetriesConfig) -> R:
    """Act in this process, and again after a delay while the error is transient."""
    number = 1
    while True:
        try:
            return action()
        except SiftlineError as error:
            if error.fault != "transient" or number >= retries.attempts:
                raise
            time.sleep(_next_delay(what, action, error, number, retries))
            number += 1


class _Attempts(Generic[T, R]):
    """Attempts by what they wait for: an answer, the end of a delay, a moment alone, or room."""

    def __init__(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        retries: RetriesConfig,
        split: Callable[[T], T | None],
        stop: Stop,
    ) -> None:
        self._function = function
        self._new = map(_Attempt, items)
        self._retries = retries
        self._split = split
        self._stop = stop
        self.delayed: list[tuple[float, int, _Attempt[T]]] = []
        self._due: deque[_Attempt[T]] = deque()
        self._suspects: deque[_Attempt[T]] = deque()
        self._order = itertools.count()
        self.running: list[_Attempt[T]] = []
        self.halvings = 0

    def seconds_to_due(self) -> float:
        """Seconds until the first delay ends."""
        return max(0.0, self.delayed[0][0] - time.monotonic()) if self.delayed else math.inf

    def begin(self, room: int) -> tuple[T, ...]:
        """Begin up to `room` attempts: a suspect alone, else those due, then new items."""
        now = time.monotonic()
        while self.delayed and self.delayed[0][0] <= now:
            attempt = heapq.heappop(self.delayed)[2]
            (self._suspects if attempt.alone else self._due).append(attempt)
        begun: list[T] = []
        while len(begun) < room and (following := self._next()) is not None:
            self.running.append(following)
            begun.append(following.item)
        return tuple(begun)

    def _next(self) -> _Attempt[T] | None:
        if self._suspects:
            return None if self.running else self._suspects.popleft()
        if self.running and self.running[0].alone:
            return None
        return self._due.popleft() if self._due else self._first()

    def _first(self) -> _Attempt[T] | None:
        """Return the first attempt at a new item, in smaller batches while memory is short."""
        attempt = next(self._new, None)
        for _ in range(self.halvings):
            smaller = self._split(attempt.item) if attempt is not None else None
            if attempt is None or smaller is None:
                break
            attempt = replace(attempt, item=smaller)
        return attempt

    def settle(self, answers: list[Answer[T, R]]) -> Iterator[Settled[T, R]]:
        """Give the final results among answers; the others get another attempt, unless stopped."""
        for answer in answers:
            attempt, error = self._end(answer.item), answer.error
            if error is not None and not isinstance(error, SiftlineError):
                raise error
            starts = attempt.number
            if error is not None and error.fault in ("worker", "resource", "transient"):
                # Work that a stop leaves undone has not failed.
                error = None if self._stop.requested else self._follow(attempt, error, answer.began)
                if error is None:
                    continue
                starts -= answer.began == "not"
            yield Settled(answer.item, answer.value, error, starts, answer.seconds)

    def _follow(self, attempt: _Attempt[T], error: SiftlineError, began: Began) -> SiftlineError | None:
        """Plan the next attempt; return the final error if there is none."""
        if began == "not":
            return self._begin_again(attempt, error)
        if error.fault == "worker":
            return self._suspect(attempt, error, began)
        return self._halve(attempt, error) if error.fault == "resource" else self._again(attempt, error)

    def _end(self, item: T) -> _Attempt[T]:
        # By identity: two items may be equal, and even be the same object.
        place = next(i for i, attempt in enumerate(self.running) if attempt.item is item)
        return self.running.pop(place)

    def _again(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        if attempt.number >= self._retries.attempts:
            return error
        seconds = _next_delay(attempt.item, self._function, error, attempt.number, self._retries)
        later = replace(attempt, number=attempt.number + 1)
        heapq.heappush(self.delayed, (time.monotonic() + seconds, next(self._order), later))
        return None

    def _halve(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        smaller = self._split(attempt.item)
        if smaller is None:
            return error
        report_incident("split", attempt.item, self._function, f"{error.problem}; it is done in halves")
        # Alone, because the others may take the memory that it lacks.
        self._suspects.append(_Attempt(smaller, attempt.number + 1, alone=True))
        return None

    def _begin_again(self, attempt: _Attempt[T], error: SiftlineError) -> SiftlineError | None:
        """Send an item again that its worker had not begun: at once, then alone."""
        again = replace(attempt, lost=attempt.lost + 1)
        if again.lost > _MOST_LOST:
            return error
        if again.lost > 1 or attempt.alone:
            self._suspects.append(replace(again, alone=True))
        else:
            self._due.append(again)
        return None

    def _suspect(self, attempt: _Attempt[T], error: SiftlineError, began: Began) -> SiftlineError | None:
        """Try a suspect alone, even after the last attempt if it may be innocent."""
        guilty = OutOfMemory("the worker died while this chunk ran alone", error.remedy)
        if attempt.number >= self._retries.attempts and (attempt.alone or began == "alone"):
            return guilty
        if not attempt.alone:
            text = f"{error.problem}; it is tried alone"
        elif self._halve(attempt, guilty) is None:
            return None
        else:
            text = f"{guilty.problem}; attempt {attempt.number + 1}"
        report_incident("worker lost", attempt.item, self._function, text)
        self._suspects.append(replace(attempt, number=attempt.number + 1, alone=True))
        return None


def _next_delay(
    item: object, function: Callable[..., object], error: SiftlineError, number: int, retries: RetriesConfig
) -> float:
    """Report the attempt after this number; return its delay in seconds."""
    seconds = delay_after(retries, number)
    report_incident("retried", item, function, f"{error.problem}; attempt {number + 1} in {seconds:.1f} s")
    return seconds


def delay_after(retries: RetriesConfig, number: int) -> float:
    """Return the seconds between an attempt, the first being number 1, and the next."""
    # Bounded, because floats have an end.
    seconds = min(retries.max_delay_seconds, retries.delay_seconds * retries.backoff ** min(number - 1, 64))
    share = random.uniform(1 - retries.jitter, 1 + retries.jitter)  # noqa: S311  not a secret
    return min(retries.max_delay_seconds, seconds * share)
