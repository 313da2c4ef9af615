"""Resources that a job asks for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from siftline.config.fields import Duration, MemorySize, Section

Priority = Literal["low", "normal", "high", "urgent"]
PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high", "urgent")


class ResourcesConfig(Section):
    """Resources that the job asks for. What is not set follows from the input and the machine."""

    workers: PositiveInt | None = None
    """Workers. Default: as many as the chunks can use, at most one per core or slot of the pool."""
    threads: PositiveInt | None = None
    """Chunks each worker scores at once. Default: 1."""
    memory: MemorySize | None = None
    """Memory of each worker. Default: what a chunk, the model and earlier runs of the pipeline need."""
    max_wait: Duration | None = Field(default=None, examples=["2h"])
    """Longest time in the queue of a pool; after it the run fails."""
    priority: Priority = "normal"
    """Place in the queue: each level is worth half an hour of waiting."""
