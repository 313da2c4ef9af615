"""The compute of a job without its orchestration: one process scores chunk after chunk, timed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.prepared import prepare
from siftline.stages.scoring import score_chunk


def main(config: Path) -> None:
    _, _, tasks = prepare(config)
    score_chunk(tasks[0])  # loads the model
    started = time.perf_counter()
    for task in tasks:
        score_chunk(task)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
