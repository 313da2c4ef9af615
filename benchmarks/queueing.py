"""A pool in virtual time: the rules that admit and scale real jobs, on a thousand workers."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np

from siftline.config.resources import PRIORITIES, Priority
from siftline.engine.adaptation import Load, Settings, adapt
from siftline.resources.queue import Waiting, share_of, whose_turn

T = TypeVar("T")

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)
_CALM = 0.6  # of the memory: neither rule for memory acts


@dataclass(frozen=True)
class Job:
    """A job that arrives after some seconds, can use so many workers, and takes seconds for each chunk."""

    run: str
    arrival: float
    minimum: int
    maximum: int
    priority: Priority
    chunks: tuple[float, ...]


@dataclass
class Running:
    """A job at work: its chunks to come, and its workers."""

    job: Job
    left: int
    todo: Iterator[float]
    workers: int
    leaving: int = 0
    changed: float = float("-inf")


@dataclass
class Outcome:
    """Results, in virtual seconds; slot seconds at work, and those that any scheduler could use."""

    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    possible: float = 0.0
    most_held: int = 0
    decisions: int = 0
    deciding: float = 0.0


def jobs(count: int, chunks: int, pool: int, seed: int = 0) -> list[Job]:
    """Return jobs of very different sizes that arrive within an hour, with `chunks` chunks altogether."""
    draw = np.random.default_rng(seed)
    shares = draw.pareto(1.2, count) + 0.2
    sizes = np.maximum(1, np.floor(shares / shares.sum() * chunks)).astype(int)
    sizes[0] += chunks - sizes.sum()
    arrivals = np.sort(draw.uniform(0, 3_600, count))
    found = []
    for number, size in enumerate(sizes):
        maximum = int(np.clip(size // 2, 1, pool))
        # A third insists on a number of workers.
        fixed = int(np.clip(size // 8, 1, pool // 4)) if number % 3 == 0 else None
        found.append(
            Job(
                run=f"run-{number:03d}",
                arrival=float(arrivals[number]),
                minimum=fixed or 1,
                maximum=fixed or maximum,
                priority=PRIORITIES[draw.choice(4, p=(0.2, 0.6, 0.15, 0.05))],
                chunks=tuple(draw.lognormal(np.log(30), 0.4, size).tolist()),
            )
        )
    return found


class Simulation:
    """Jobs on a pool: admitted by `whose_turn` and `share_of`, scaled by `adapt`."""

    def __init__(self, batch: list[Job], pool: int) -> None:
        self.outcome = Outcome()
        self._pool = self._free = pool
        self._order = itertools.count()
        self._jobs = {job.run: job for job in batch}
        self._events = [(job.arrival, next(self._order), "arrive", job.run) for job in batch]
        self._queue: dict[str, Waiting] = {}
        self._running: dict[str, Running] = {}
        self._clock = 0.0

    def run(self) -> Outcome:
        """Play all events."""
        heapq.heapify(self._events)
        while self._events:
            moment, _, what, run = heapq.heappop(self._events)
            self.outcome.possible += min(self._pool, self._demand()) * (moment - self._clock)
            self.outcome.busy += (self._pool - self._free) * (moment - self._clock)
            self._clock = moment
            if what == "arrive":
                job = self._jobs[run]
                since = _EPOCH + timedelta(seconds=moment)
                self._queue[run] = Waiting(run, job.minimum, job.priority, since, _NEVER)
            else:
                self._chunk_ends(self._running[run])
            self._admit()
        return self.outcome

    def _demand(self) -> int:
        """Return the slots that the jobs could use now, if there were enough."""
        running = sum(min(one.left, one.job.maximum) for one in self._running.values())
        return running + sum(self._jobs[run].maximum for run in self._queue)

    def _chunk_ends(self, one: Running) -> None:
        one.left -= 1
        self._scale(one)
        following = None if one.leaving else next(one.todo, None)
        if following is None:
            one.leaving = max(0, one.leaving - 1)
            one.workers -= 1
            self._free += 1
        else:
            self._begin(one, following)
        if not one.workers:
            self.outcome.ended[one.job.run] = self._clock
            del self._running[one.job.run]

    def _scale(self, one: Running) -> None:
        free = 0 if self._queue else self._free
        load = Load(self._clock, _CALM, one.workers, 1, one.left, free)
        settings = Settings(window=8, workers=one.workers - one.leaving, changed=one.changed)
        decision = self._timed(partial(adapt, load, settings, 8, one.job.minimum, one.job.maximum))
        if decision is None:
            return
        one.changed = self._clock
        change = decision.settings.workers - settings.workers
        if change < 0:
            one.leaving -= change
            return
        for _ in range(change):
            self._hire(one)

    def _admit(self) -> None:
        while self._queue:
            now = _EPOCH + timedelta(seconds=self._clock)
            turn = self._timed(partial(whose_turn, self._queue.values(), self._free, now))
            if turn is None:
                return
            del self._queue[turn.run]
            job = self._jobs[turn.run]
            one = Running(job, len(job.chunks), iter(job.chunks), 0)
            self._running[turn.run] = one
            self.outcome.begun[turn.run] = self._clock
            for _ in range(share_of(job.minimum, job.maximum, self._free, self._queue.values())):
                self._hire(one)

    def _hire(self, one: Running) -> None:
        following = next(one.todo, None)
        if following is not None:
            one.workers += 1
            self._free -= 1
            self.outcome.most_held = max(self.outcome.most_held, self._pool - self._free)
            self._begin(one, following)

    def _begin(self, one: Running, seconds: float) -> None:
        heapq.heappush(self._events, (self._clock + seconds, next(self._order), "chunk", one.job.run))

    def _timed(self, decide: Callable[[], T]) -> T:
        started = time.perf_counter()
        found = decide()
        self.outcome.deciding += time.perf_counter() - started
        self.outcome.decisions += 1
        return found


def main(pool: int = 1_000, count: int = 200, chunks: int = 100_000) -> None:
    batch = jobs(count, chunks, pool)
    outcome = Simulation(batch, pool).run()
    print(f"{pool:,} workers, {count} jobs, {chunks:,} chunks, ", end="")
    print(f"{max(outcome.ended.values()) / 3600:.1f} hours of virtual time\n\n| Measure | Found |\n|---|---|")
    print(f"| Jobs that ended | {len(outcome.ended)} of {count} |")
    print(f"| Most slots held | {outcome.most_held:,} of {pool:,} |")
    print(f"| Utilisation, of what the jobs could use | {outcome.busy / outcome.possible:.1%} |")
    for priority in reversed(PRIORITIES):
        found = [outcome.begun[job.run] - job.arrival for job in batch if job.priority == priority]
        print(
            f"| Wait of {priority} runs: median, longest | {np.median(found):,.0f} s, {max(found):,.0f} s |"
        )
    print(f"| Decisions a second | {outcome.decisions / outcome.deciding:,.0f} |")


if __name__ == "__main__":
    main()
