"""Planning alone, in a process of its own: what it takes."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import kernel_bytes
from siftline.config.loading import load_config, resolve_config
from siftline.stages.plan import plan_batch


def main(config: Path) -> None:
    batch = resolve_config(load_config(config), datetime.now(UTC))
    started = time.perf_counter()
    plan_batch(batch)
    seconds = time.perf_counter() - started
    # Not from getrusage, which tells that of whoever started this process, if it is higher.
    peak = kernel_bytes(os.getpid(), "status", "VmHWM:")
    print(json.dumps({"seconds": seconds, "bytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
