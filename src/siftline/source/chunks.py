"""Cutting rows into chunks: along row groups of a suitable size, otherwise within them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from siftline.batch_plan import ChunkTable
from siftline.config.batch import ChunkingConfig
from siftline.config.clusters import (
    Cluster,
    LocalCluster,
    SerialCluster,
    asked_memory,
    asked_threads,
    asked_workers,
    bounds,
)
from siftline.config.fields import parse_bytes
from siftline.config.resources import ResourcesConfig
from siftline.errors import ConfigError
from siftline.system.machine import USUAL_MEMORY, this_machine

_MIN_ROWS = 10_000
_MAX_ROWS = 1 << 20
_CHUNKS_PER_SLOT = 4
# A worker holds a chunk as stored, and its keys and scores while they are written; features are decoded
# batch by batch.
COPIES = 3


def chunk_rows(
    chunking: ChunkingConfig,
    cluster: Cluster,
    rows: int,
    row_bytes: int,
    row_group: int = 0,
    resources: ResourcesConfig = ResourcesConfig(),  # noqa: B008  it is frozen
) -> int:
    """Return the rows per chunk; raise `ConfigError` if a chunk of the configured size does not fit a worker.

    The input has `rows` rows, at most `row_group` in a row group; keys and features of one take `row_bytes`.
    Reading part of a row group decodes all rows before it: those that fit and keep all slots busy stay whole.
    """
    slots, memory = _slots_and_memory(cluster, resources)
    if chunking.rows != "auto":
        size = chunking.rows
    elif chunking.bytes is not None:
        size = max(1, parse_bytes(chunking.bytes) // row_bytes)
    else:
        by_parallelism = max(_MIN_ROWS, -(-rows // (slots * _CHUNKS_PER_SLOT)))
        by_memory = memory // (2 * COPIES * row_bytes)
        whole = row_group if rows >= 2 * slots * row_group else 0
        size = max(1, min(max(by_parallelism, whole), by_memory, _MAX_ROWS))
    needed = min(size, rows) * row_bytes * COPIES
    if needed > memory and not isinstance(cluster, SerialCluster):
        limit = "resources.memory" if resources.memory else "cluster.memory_limit"
        raise ConfigError(
            f"chunking: a chunk of {min(size, rows):,} rows needs about {needed >> 20:,} MiB, "
            f"a worker's slot has {memory >> 20:,} MiB",
            f"lower chunking.rows, or raise {limit}",
        )
    return size


def row_bytes(features: int, keys: int) -> int:
    """Return the bytes of a row in memory: its features, keys, score and position."""
    return 8 * (features + keys + 2)


def _slots_and_memory(cluster: Cluster, resources: ResourcesConfig) -> tuple[int, int]:
    """Return the number of chunks scored at once, and the memory in bytes for each."""
    machine = this_machine()
    threads, asked = asked_threads(cluster, resources), asked_memory(cluster, resources)
    if isinstance(cluster, SerialCluster):
        return 1, USUAL_MEMORY
    if isinstance(cluster, LocalCluster):
        _, most = bounds(asked_workers(cluster, resources) or machine.cores)
        return most * threads, (asked or machine.usual_memory(most)) // threads
    return max(machine.cores, 2), asked or USUAL_MEMORY


def cut_chunks(row_groups: Sequence[tuple[int, int, int]], rows: int) -> ChunkTable:
    """Cut row groups, given as (file, row group, rows) in source order, into chunks of at most `rows` rows.

    Small row groups are joined, large ones split into equal parts.
    """
    pieces: list[tuple[int, int, int, int]] = []
    bounds = [0]
    held = 0
    for file, group, size in row_groups:
        if not size:
            continue
        if held and held + size > rows:
            bounds.append(len(pieces))
            held = 0
        runs = -(-size // rows)
        edges = [size * i // runs for i in range(runs + 1)]
        for start, stop in pairwise(edges):
            pieces.append((file, group, start, stop - start))
            if runs > 1:
                bounds.append(len(pieces))
        held = held + size if runs == 1 else 0
    if bounds[-1] != len(pieces):
        bounds.append(len(pieces))
    return ChunkTable(np.asarray(pieces, dtype=np.int64).reshape(-1, 4), np.asarray(bounds, dtype=np.int64))
