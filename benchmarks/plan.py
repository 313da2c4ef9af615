"""Planning alone, in a process of its own: what it takes."""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from siftline.loading import load_config, resolve_config
from siftline.plan import plan_batch


def main(config: Path) -> None:
    batch = resolve_config(load_config(config), datetime.now(UTC))
    started = time.perf_counter()
    plan_batch(batch)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
