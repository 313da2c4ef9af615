"""The cost of monitoring a job, and of asking for its status while it runs, in one process."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from prefect.settings import PREFECT_API_URL

from benchmarks.prepared import prepare
from siftline.flows.control.statuses import batch_status
from siftline.jobs.live import live_record
from siftline.jobs.monitor import Monitor
from siftline.progress import Progress, Usage, WorkerUsage
from siftline.stages.scoring import score_chunk
from siftline.storage.lease import Lease
from siftline.tasks.adapters.run_events import RunEvents

_WORKERS = 2
_TIMES = 100
_SCORED = 300


def main(config: Path) -> None:
    plan, _, tasks = prepare(config)
    run = str(uuid4())
    monitor = Monitor(run, plan.config.name)
    monitor.begin(plan, None)
    events = RunEvents(monitor)
    with Lease(run) as lease:
        lease.take(plan.directory)
        score = _cpu(lambda number: score_chunk(tasks[number]), min(_SCORED, len(tasks)))
        report = _cpu(lambda number: _report(monitor, number, len(tasks)), len(tasks))
        tick = _cpu(lambda _: _tick(monitor, lease, events), _TIMES)
        status = _wall(plan.job_id, _TIMES)
    seconds = score * len(tasks) / _WORKERS
    share = (report * len(tasks) + tick * seconds) / (score * len(tasks))
    found = {"chunks": len(tasks), "share": share, "tick_ms": tick * 1000, "report_us": report * 1e6}
    print(json.dumps({**found, "status_ms": status * 1000, "server": bool(PREFECT_API_URL.value())}))


def _report(monitor: Monitor, number: int, chunks: int) -> None:
    monitor(Progress("detect", number, chunks, number * 100, chunks * 100, anomalies=0, chunk_seconds=0.01))


def _tick(monitor: Monitor, lease: Lease, events: RunEvents) -> None:
    """Do what is done once a second while a job runs."""
    monitor(Usage(tuple(WorkerUsage(f"tcp://127.0.0.1:{port}", 100.0, 1 << 30) for port in range(_WORKERS))))
    record = monitor.record()
    lease.check()
    live_record(lease.directory or Path()).write(record, durable=False)
    events.send(record, "job")


def _cpu(work: Callable[[int], object], times: int) -> float:
    started = time.process_time()
    for number in range(times):
        work(number)
    return (time.process_time() - started) / times


def _wall(job: str, times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        found = batch_status(job)
        seconds.append(time.perf_counter() - started)
        if found.state != "running":
            raise RuntimeError(f"the job is {found.state}")
    return statistics.median(seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
