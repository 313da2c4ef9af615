"""Pools: workers that jobs share, as read from ``deployments/pool.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, PositiveInt

from siftline.config.fields import MemorySize, Name, Section, parse_bytes
from siftline.config.loading import parse, read_yaml


class PoolSize(Section):
    """Size of a pool: one slot for each worker."""

    workers: PositiveInt
    """Workers of all jobs together."""
    memory: MemorySize = "2GiB"
    """Memory of each worker. A job that wants more takes more slots for a worker."""


class Pools(PoolSize):
    """The pool of all work pools, and of some work pools instead."""

    work_pools: dict[Name, PoolSize] = Field(
        default={}, examples=[{"large": {"workers": 2, "memory": "16GiB"}}]
    )
    """Pools of their own, by the name of the work pool."""


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


def load_pools(path: Path) -> Pools:
    """Read a file of pools; raise ConfigError if it is invalid."""
    return parse(Pools, read_yaml(path), str(path), "siftline schema pool")


def is_pool(path: Path) -> bool:
    """Return True if a YAML file seems to be of a pool, by its name or by its fields."""
    if path.stem == "pool":
        return True
    values = read_yaml(path)
    return "workers" in values and "batch" not in values


def sizes(pools: Pools) -> dict[str, Pool]:
    """Return the pools by name: ``siftline``, and ``siftline-<work pool>``."""
    named: dict[str, PoolSize] = {POOL: pools}
    named |= {pool_name(name): size for name, size in pools.work_pools.items()}
    return {name: Pool(name, size.workers, parse_bytes(size.memory)) for name, size in named.items()}


POOL = "siftline"


def pool_name(work_pool: str | None) -> str:
    """Return the name of the pool of a work pool."""
    return POOL if work_pool is None else f"{POOL}-{work_pool}"
