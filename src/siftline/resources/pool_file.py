"""Files of pools, such as ``deployments/pool.yaml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from siftline.config.fields import MemorySize, Name, Section, parse_bytes
from siftline.config.loading import parse, read_yaml
from siftline.resources.pool import POOL, Pool, pool_name


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
