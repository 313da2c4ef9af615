"""Pools: workers that jobs share."""

from __future__ import annotations

from dataclasses import dataclass

POOL = "siftline"


def pool_name(work_pool: str | None) -> str:
    """Return the name of the pool of a work pool."""
    return POOL if work_pool is None else f"{POOL}-{work_pool}"


@dataclass(frozen=True)
class Pool:
    """A pool on the server: its name, its slots, and the memory in bytes of each."""

    name: str
    slots: int
    memory: int

    def slots_for(self, workers: int, memory: int) -> int:
        """Return the slots of some workers that want `memory` bytes each."""
        return workers * max(1, -(-memory // self.memory))

    def most_workers(self, memory: int) -> int:
        """Return the largest number of workers that want `memory` bytes each; 0 if one is too large."""
        return self.slots // self.slots_for(1, memory)
