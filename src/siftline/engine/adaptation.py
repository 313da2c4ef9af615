"""Rules that adapt a running job to the memory and the work that it has, as pure functions.

Each rule looks at a sample and at what it decided before. It acts when a measure is beyond its limit, goes
back only when the measure is well within it (hysteresis), and waits between two actions (cooldown).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from siftline.progress import counted

# Shares of a worker's limit. Dask writes to disk from 0.6 of managed memory, and pauses a worker at 0.8.
HIGH_MEMORY = 0.8
LOW_MEMORY = 0.5
COOLDOWN_SECONDS = 5.0
# Chunks for each slot that justify another worker, and below which a worker is one too many.
BUSY_CHUNKS = 4.0
_MOST_HALVINGS = 6

Kind = Literal["window", "batches", "threads", "scale up", "scale down"]


@dataclass(frozen=True)
class Load:
    """Sample of a running job.

    Attributes
    ----------
    seconds : float
        Time of the sample, on any clock that does not go back.
    memory : float
        Memory of the fullest worker, as a share of its limit.
    workers, threads : int
        Workers now, and chunks that each can score at once.
    left : int
        Chunks without a result, those in flight among them.
    free : int
        Slots of the pool that are neither held nor waited for.
    late : int
        Stragglers that wait for an idle worker.
    """

    seconds: float
    memory: float
    workers: int
    threads: int
    left: int
    free: int = 0
    late: int = 0


@dataclass(frozen=True)
class Settings:
    """Present settings of a job, and the time of the last change.

    Attributes
    ----------
    window : int
        Chunks in flight for each slot.
    halvings : int
        How many times the batches of new chunks are halved.
    busy : int
        Chunks in flight for each worker, at most; 0: as many as it has threads.
    workers : int
        Workers wanted.
    """

    window: int
    workers: int
    halvings: int = 0
    busy: int = 0
    changed: float = float("-inf")


@dataclass(frozen=True)
class Decision:
    """A change of the settings, and its cause in words."""

    kind: Kind
    settings: Settings
    cause: str


def adapt(load: Load, now: Settings, widest: int, minimum: int, maximum: int) -> Decision | None:
    """Return the next change of the settings, or None.

    Memory first: a smaller window, then smaller batches, then fewer chunks at once. Then workers, between
    `minimum` and `maximum`. `widest` is the window without pressure.
    """
    if load.seconds - now.changed < COOLDOWN_SECONDS:
        return None
    return _relieve(load, now) or _relax(load, now, widest) or _scale(load, now, minimum, maximum)


def _relieve(load: Load, now: Settings) -> Decision | None:
    """Take less memory while the fullest worker is beyond the limit."""
    if load.memory <= HIGH_MEMORY:
        return None
    cause = f"the fullest worker uses {load.memory:.0%} of its memory, more than {HIGH_MEMORY:.0%}"
    if now.window > 1:
        return _decide("window", load, now, cause, window=now.window // 2)
    if now.halvings < _MOST_HALVINGS:
        return _decide("batches", load, now, cause, halvings=now.halvings + 1)
    busy = now.busy or load.threads
    return _decide("threads", load, now, cause, busy=busy - 1) if busy > 1 else None


def _relax(load: Load, now: Settings, widest: int) -> Decision | None:
    """Go back one step, the last one first, when there is plenty of memory."""
    if load.memory >= LOW_MEMORY:
        return None
    cause = f"the fullest worker uses {load.memory:.0%} of its memory, less than {LOW_MEMORY:.0%}"
    if now.busy:
        busy = now.busy + 1
        return _decide("threads", load, now, cause, busy=0 if busy >= load.threads else busy)
    if now.halvings:
        return _decide("batches", load, now, cause, halvings=now.halvings - 1)
    if now.window < widest:
        return _decide("window", load, now, cause, window=min(widest, 2 * now.window))
    return None


def _scale(load: Load, now: Settings, minimum: int, maximum: int) -> Decision | None:
    """Add workers for the backlog or a straggler; remove those for which nothing is left."""
    slots = max(1, load.threads)
    wanted = int(load.left / (BUSY_CHUNKS * slots))
    most = min(maximum, now.workers + load.free)
    may_grow = now.workers < most and load.workers >= now.workers
    if wanted > now.workers and may_grow:
        workers = min(most, 2 * now.workers, wanted)
        cause = f"{counted(load.left, 'chunk')} left for {counted(now.workers, 'worker')}"
        return _decide("scale up", load, now, cause, workers=workers)
    if load.late:
        cause = f"{counted(load.late, 'chunk')} in flight for far longer than others"
        return _decide("scale up", load, now, cause, workers=now.workers + 1) if may_grow else None
    needed = max(minimum, 1, -(-load.left // slots))
    if needed < now.workers:
        cause = f"{counted(load.left, 'chunk')} left, fewer than {counted(now.workers, 'worker')} can use"
        return _decide("scale down", load, now, cause, workers=needed)
    return None


def _decide(kind: Kind, load: Load, now: Settings, cause: str, **change: int) -> Decision:
    settings = replace(now, changed=load.seconds, **change)
    return Decision(kind, settings, cause)
