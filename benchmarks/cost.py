"""What a job costs, as a model with few numbers, and what it says of inputs and clusters not measured.

    wall(rows, workers) = fixed + rows x (coordinator + worker / workers)

`fixed` is what a job takes whatever its size. `coordinator` is the CPU time of the job's own process for a
row: receipts, threshold, audit, publication; more workers do not make it less. `worker` is the rest of the
wall time, which they share, waits for the disk and all.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.common import WORKERS
from benchmarks.records import SIFTLINE, Proof

_FIELDS = ("wall", "cpu", "coordinator_cpu")


@dataclass(frozen=True)
class CostModel:
    """Bytes per row, seconds per row, seconds per job."""

    read: float
    written: float
    fixed_wall: float
    fixed_cpu: float
    cpu: float
    coordinator: float
    worker: float

    def wall(self, rows: int, workers: int) -> float:
        """Seconds that a job takes."""
        return self.fixed_wall + rows * (self.coordinator + self.worker / workers)

    def cpu_seconds(self, rows: int) -> float:
        """CPU seconds that a job takes, on all cores."""
        return self.fixed_cpu + rows * self.cpu


def cost_model(proof: Proof) -> CostModel | None:
    """Fit the model to the largest input and the one before it, or to the job of 1,000 rows."""
    if not proof.speeds or proof.tiny is None:
        return None
    large = proof.speeds[-1]
    if len(proof.speeds) > 1:
        small = proof.speeds[-2]
        rows, before = small.rows, [small.median(SIFTLINE, field) for field in _FIELDS]
    else:
        rows, before = 1000, [getattr(proof.tiny, field) for field in _FIELDS]
    after = [large.median(SIFTLINE, field) for field in _FIELDS]
    wall, cpu, coordinator = (
        (more - less) / (large.rows - rows) for less, more in zip(before, after, strict=True)
    )
    if not 0 < coordinator < wall < cpu:
        return None  # the sizes are so small or so near that chance decides
    return CostModel(
        read=large.read / large.rows,
        written=large.written / large.rows,
        fixed_wall=max(0.0, before[0] - rows * wall),
        fixed_cpu=max(0.0, before[1] - rows * cpu),
        cpu=cpu,
        coordinator=coordinator,
        worker=(wall - coordinator) * WORKERS,
    )
