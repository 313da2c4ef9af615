"""The estimated waits of jobs that share one slot, beside the real ones."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from siftline.flows.control.pools import pool_changes, read_pool
from siftline.flows.control.slots import place_of, read_queue
from siftline.flows.server import server
from siftline.resources.pool import Pool
from siftline.resources.pool_file import Pools, sizes

_JOBS = 5
_PATIENCE_SECONDS = 600.0


def main(config: Path) -> None:
    """Run a job alone, then some more at once, and print the waits as JSON, in seconds."""
    with server() as client, _one_slot(client) as pool:
        _finish([_start(config, 0)])
        jobs = [_start(config, number) for number in range(1, _JOBS + 1)]
        print(json.dumps(_waits(client, pool, jobs)))
        _finish(jobs)


def _start(config: Path, number: int) -> subprocess.Popen[bytes]:
    command = str(Path(sys.executable).with_name("siftline"))
    # Another sample makes another job of the same work.
    other = ("--set", f"output.path=results-{number}", "--set", f"detector.sample_rows={100_000 + number}")
    return subprocess.Popen([command, "run", str(config), *other], stdout=subprocess.DEVNULL)


def _finish(jobs: Sequence[subprocess.Popen[bytes]]) -> None:
    statuses = [job.wait() for job in jobs]
    if any(statuses):
        raise RuntimeError(f"a job failed: {statuses}")


@contextmanager
def _one_slot(client: SyncPrefectClient) -> Iterator[Pool]:
    for change in pool_changes(client, sizes(Pools(workers=1, memory="4GiB"))):
        change.make()
    pool = read_pool(client, None)
    if pool is None:
        raise RuntimeError("the server has no pool")
    yield pool
    client.delete_variable_by_name("siftline_slot_memory")
    client.delete_global_concurrency_limit_by_name(pool.name)


def _waits(
    client: SyncPrefectClient, pool: Pool, jobs: Sequence[subprocess.Popen[bytes]]
) -> list[tuple[float, float]]:
    """Estimate the wait of each job as it comes, if it can be known; return them with the real ones."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    asked: dict[str, tuple[float, float]] = {}
    real: dict[str, float] = {}
    seen: set[str] = set()
    while len(seen) < _JOBS or len(real) < len(asked):
        if time.monotonic() > give_up or any(job.poll() for job in jobs):
            raise RuntimeError("the jobs do not begin")
        waiting, holding = read_queue(client, pool)
        now, still = time.monotonic(), {one.run for one in waiting}
        seen |= still | {str(run.id) for run, _ in holding}
        real |= {run: now - since for run, (since, _) in asked.items() if run not in still | real.keys()}
        for run in still - asked.keys():
            place = place_of(client, pool, UUID(run))
            if place is not None and place.waits and place.seconds is not None:
                asked[run] = now, place.seconds
        time.sleep(0.2)
    return [(seconds, real[run]) for run, (_, seconds) in asked.items()]


def median_error(waits: Sequence[tuple[float, float]]) -> float:
    """Return the median of the errors, as shares of the real waits."""
    return statistics.median(abs(estimated - real) / real for estimated, real in waits)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
