"""What a job costs, as a model with few numbers, and what it says of inputs and clusters not measured.

    wall(rows, workers) = fixed + max(rows x worker_seconds / workers, chunks x coordinator)

`fixed` is what a job takes whatever its size. `worker_seconds` is how long a worker is busy with a row, waits
for the disk and all: measured with the coordinator on the same cores, so rather too much. `coordinator` is
its CPU time for a chunk, the only thing that more workers do not make faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.peers.common import WORKERS
from benchmarks.records import SIFTLINE, Proof


@dataclass(frozen=True)
class CostModel:
    """Bytes per row, seconds per row, seconds per chunk, seconds per job."""

    read: float
    written: float
    chunk_rows: float
    fixed_wall: float
    fixed_cpu: float
    cpu: float
    worker_seconds: float
    coordinator: float

    def wall(self, rows: int, workers: int) -> float:
        """Seconds that a job takes."""
        chunks = math.ceil(rows / self.chunk_rows)
        return self.fixed_wall + max(rows * self.worker_seconds / workers, chunks * self.coordinator)

    def cpu_seconds(self, rows: int) -> float:
        """CPU seconds that a job takes, on all cores."""
        return self.fixed_cpu + rows * self.cpu


def cost_model(proof: Proof) -> CostModel | None:
    """Fit the model to the largest input and the one before it, or to the job of 1,000 rows."""
    if not proof.speeds or proof.chunks is None or proof.tiny is None:
        return None
    large = proof.speeds[-1]
    if len(proof.speeds) > 1:
        small = proof.speeds[-2]
        rows, wall, cpu = small.rows, small.median(SIFTLINE, "wall"), small.median(SIFTLINE, "cpu")
    else:
        rows, wall, cpu = 1000, proof.tiny.up.wall, proof.tiny.up.cpu
    wall_a_row = (large.median(SIFTLINE, "wall") - wall) / (large.rows - rows)
    cpu_a_row = (large.median(SIFTLINE, "cpu") - cpu) / (large.rows - rows)
    if wall_a_row <= 0 or cpu_a_row <= 0:
        return None  # the sizes are so small or so near that chance decides
    return CostModel(
        read=large.read / large.rows,
        written=large.written / large.rows,
        chunk_rows=large.rows / large.chunks,
        fixed_wall=max(0.0, wall - rows * wall_a_row),
        fixed_cpu=max(0.0, cpu - rows * cpu_a_row),
        cpu=cpu_a_row,
        worker_seconds=wall_a_row * WORKERS,
        coordinator=proof.chunks.coordinator / 1000,
    )
