"""The compute of a job without its orchestration: one process scores chunk after chunk, timed."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from siftline.detect import chunk_tasks
from siftline.executor import SerialExecutor
from siftline.fit import fit_detector
from siftline.loading import load_config, resolve_config
from siftline.plan import plan_batch
from siftline.scoring import score_chunk, warm_up


def main(config: Path) -> None:
    plan = plan_batch(resolve_config(load_config(config, ()), datetime.now(UTC)), fresh=True)
    detector = fit_detector(plan, SerialExecutor())
    warm_up(detector.kind, plan.rows)
    tasks = list(chunk_tasks(plan, detector, range(len(plan.chunks))))
    score_chunk(tasks[0])  # loads the model
    started = time.perf_counter()
    for task in tasks:
        score_chunk(task)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
