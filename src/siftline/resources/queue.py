"""The queue for a pool: whose turn it is, and how long the others will wait.

A level of priority is worth half an hour of waiting. So the order of two runs never changes while they wait,
a run is overtaken only by those that come within a bounded time, and none starves. The first of the queue is
not overtaken by smaller ones that would fit: otherwise a large run would never get its slots.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from siftline.config.resources import PRIORITIES, Priority

LEVEL = timedelta(minutes=30)


@dataclass(frozen=True)
class Waiting:
    """A run that waits for slots.

    Attributes
    ----------
    until : datetime
        Time after which it does not count as waiting, unless it is seen again: its process may have died.
    seconds : float or None
        Expected duration, if known.
    """

    run: str
    slots: int
    priority: Priority
    since: datetime
    until: datetime
    seconds: float | None = None

    @property
    def _rank(self) -> tuple[datetime, datetime, str]:
        return self.since - PRIORITIES.index(self.priority) * LEVEL, self.since, self.run


@dataclass(frozen=True)
class Holding:
    """A run that holds slots, and the seconds until it releases them, if known."""

    run: str
    slots: int
    seconds: float | None = None


def in_order(queue: Iterable[Waiting], now: datetime) -> list[Waiting]:
    """Return the runs that wait, in the order of their turns."""
    return sorted((one for one in queue if one.until >= now), key=lambda one: one._rank)


def whose_turn(queue: Iterable[Waiting], free: int, now: datetime) -> Waiting | None:
    """Return the run whose turn it is: the first of the queue, once its slots are free."""
    first = next(iter(in_order(queue, now)), None)
    return first if first is not None and first.slots <= free else None


def share_of(minimum: int, maximum: int, free: int, others: Iterable[Waiting]) -> int:
    """Return the slots that a run takes at its turn, of the `free` ones.

    Alone it takes as many as it can use; with `others` behind it only those that leave them their least.
    """
    reserved = sum(one.slots for one in others)
    return max(minimum, min(maximum, free - reserved))


def estimated_waits(
    queue: Sequence[Waiting], holding: Sequence[Holding], total: int, now: datetime
) -> dict[str, float | None]:
    """Estimate the seconds until each run's turn; None if a duration that decides it is unknown.

    Replays the queue: a run starts when it is the first and fits, and ends after its expected duration.
    """
    free = total - sum(one.slots for one in holding)
    ends = [(one.seconds, one.slots) for one in holding if one.seconds is not None]
    heapq.heapify(ends)
    clock = 0.0
    waits: dict[str, float | None] = {}
    for one in in_order(queue, now):
        while one.slots > free and ends:
            end, slots = heapq.heappop(ends)
            clock, free = max(clock, end), free + slots
        if one.slots > free:  # the rest depends on ends that are unknown
            break
        waits[one.run] = clock
        free -= one.slots
        if one.seconds is not None:
            heapq.heappush(ends, (clock + one.seconds, one.slots))
    return {one.run: waits.get(one.run) for one in in_order(queue, now)}
