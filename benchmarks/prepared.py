"""A job that is planned and fitted in this process, so that its chunks can be scored one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from siftline.batch_plan import BatchPlan
from siftline.config.loading import load_config, resolve_config
from siftline.engine import SerialExecutor
from siftline.stages.detect import chunk_tasks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.stages.scoring import ChunkTask, warm_up
from siftline.types import DetectorRef


class Prepared(NamedTuple):
    """The job, and the tasks of all its chunks."""

    plan: BatchPlan
    detector: DetectorRef
    tasks: list[ChunkTask]


def prepare(config: Path) -> Prepared:
    plan = plan_batch(resolve_config(load_config(config), datetime.now(UTC)), fresh=True)
    detector = fit_detector(plan, SerialExecutor())
    warm_up(detector.kind, plan.rows)
    return Prepared(plan, detector, list(chunk_tasks(plan, detector, range(len(plan.chunks)))))
