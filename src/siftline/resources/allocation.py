"""Requirements of a job, and the cluster that an allocation gives it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from siftline.batch_plan import BatchPlan, Piece
from siftline.config.batch import BatchConfig
from siftline.config.clusters import (
    Cluster,
    FactoryCluster,
    LocalCluster,
    SerialCluster,
    WorkerRange,
    asked_memory,
    asked_threads,
    asked_workers,
    bounds,
)
from siftline.errors import ConfigError
from siftline.resources.pool import Pool
from siftline.source.chunks import COPIES, row_bytes
from siftline.stages.memory import fit_bytes, measure_widths
from siftline.system.machine import Machine

# A worker with its imports, and what Dask and Arrow hold beside the chunk.
_BASE = 400 << 20
_STEP = 256 << 20
_SPARE = 1.25
# With fewer chunks each, a worker is idle for most of the time.
_CHUNKS_PER_WORKER = 2


@dataclass(frozen=True)
class Requirements:
    """Workers at least and at most, chunks that each scores at once, and memory of each in bytes.

    `start` is the number of workers to begin with, if they are free.
    """

    least: int
    start: int
    most: int
    threads: int
    memory: int

    def __str__(self) -> str:
        number = f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"
        workers = f"{number} worker{'s' if self.most > 1 else ''}"
        threads = f" with {self.threads} threads" if self.threads > 1 else ""
        return f"{workers}{threads}, {'each ' if self.most > 1 else ''}with {self.memory >> 20:,} MiB"


@dataclass(frozen=True)
class JobSize:
    """Rows and chunks of a job, largest chunk, features, and bytes of the fit."""

    rows: int
    chunks: int
    chunk_rows: int
    features: int
    fit: int = 0


def size_of(plan: BatchPlan) -> JobSize:
    """Return the size of a planned job."""
    rows = np.diff(plan.chunks.first_rows)
    file, group, size = plan.chunks.row_groups()[0]
    widths = measure_widths(plan.config, plan.features, plan.snapshot.files, Piece(file, group, 0, size))
    fit = fit_bytes(plan.config, plan.features, widths.total, plan.rows)
    return JobSize(plan.rows, len(plan.chunks), int(rows.max(initial=0)), len(plan.features), fit)


def requirements(
    config: BatchConfig, size: JobSize, machine: Machine, measured: int | None = None
) -> Requirements:
    """Return what a job asks for; what is not configured follows from its size.

    A number of workers that is not configured may be any: a job takes what there is.

    Parameters
    ----------
    measured : int, optional
        Largest memory of a worker in earlier runs of the pipeline, in bytes.
    """
    asked, cluster = config.resources, config.cluster
    threads, configured = asked_threads(cluster, asked), asked_workers(cluster, asked)
    if isinstance(cluster, SerialCluster):  # the run's own process
        least = start = most = 1
    elif configured is not None:
        least, most = bounds(configured)
        start = least
    else:
        useful = -(-size.chunks // (_CHUNKS_PER_WORKER * threads))
        least, start = 1, max(1, min(machine.cores, useful))
        most = start
    memory = asked_memory(cluster, asked)
    if memory is not None:
        return Requirements(least, start, most, threads, memory)
    usual = machine.usual_memory(most)
    wanted = max(usual, _needed(config, size, threads), int(_SPARE * (measured or 0)))
    return Requirements(least, start, most, threads, -(-wanted // _STEP) * _STEP)


def _needed(config: BatchConfig, size: JobSize, threads: int) -> int:
    """Return the memory that a worker needs for its chunks, or for the fit."""
    row = row_bytes(size.features, len(config.source.key))
    return _BASE + max(threads * COPIES * size.chunk_rows * row, size.fit)


def fitted(wanted: Requirements, pool: Pool) -> Requirements:
    """Return requirements that a pool can meet: at most its workers, and all the memory of their slots.

    Raises
    ------
    ConfigError
        When the pool never has slots for the least.
    """
    most = pool.most_workers(wanted.memory)
    if wanted.least <= most:
        memory = pool.slots_for(1, wanted.memory) * pool.memory
        return replace(wanted, start=min(wanted.start, most), most=min(wanted.most, most), memory=memory)
    slots = pool.slots_for(wanted.least, wanted.memory)
    problem = f"resources: {wanted} take {slots} slots, and pool {pool.name} has {pool.slots}"
    raise ConfigError(problem, "lower resources.workers or resources.memory, or enlarge the pool")


def needs_no_cluster(config: BatchConfig, wanted: Requirements) -> bool:
    """Return True if one process does the job sooner than a cluster starts.

    A number of workers that is configured is a cluster's.
    """
    cluster = config.cluster
    return (
        isinstance(cluster, LocalCluster)
        and asked_workers(cluster, config.resources) is None
        and wanted.most == wanted.threads == 1
    )


def allotted(cluster: Cluster, workers: int, wanted: Requirements) -> Cluster:
    """Return the cluster of a job that begins with some workers; one of others stays as it is."""
    if not isinstance(cluster, (LocalCluster, FactoryCluster)):
        return cluster
    number: int | WorkerRange = workers
    if wanted.most > workers:
        number = WorkerRange(minimum=workers, maximum=wanted.most)
    if isinstance(cluster, FactoryCluster):
        return cluster.model_copy(update={"workers": number})
    update = {"workers": number, "threads": wanted.threads, "memory_limit": str(wanted.memory)}
    return cluster.model_copy(update=update)
