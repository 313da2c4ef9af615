"""Boards of scripted jobs, and a real server that shows them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from siftline.errors import SiftlineError
from siftline.jobs.live import (
    Alert,
    ChunkCounts,
    ChunkSeconds,
    RowCounts,
    StageTime,
    WorkerUsage,
)
from siftline.jobs.status import FINAL, BatchStatus
from siftline.monitoring.board import Board
from siftline.monitoring.security import Access
from siftline.monitoring.server import Server
from tests.e2e.processes import free_port

START = datetime(2026, 3, 1, 2, 0, 7, tzinfo=UTC)
STAGES = (
    ("plan", 0.8),
    ("fit", 6.4),
    ("detect", 52.0),
    ("combine", 3.1),
    ("validate", 0.9),
    ("publish", 0.4),
)
WORKERS = tuple(
    WorkerUsage(
        address=f"tcp://127.0.0.1:4000{number}",
        cpu=61.0 + 20 * number,
        memory=412 << 20,
        memory_limit=2 << 30,
        spilled=0,
    )
    for number in range(2)
)
HOSTILE = {
    "markup": "<img src=x onerror=alert(1)><b>bold</b>",
    "script": "</script><script>alert(document.domain)</script>",
    "address": "javascript:alert(1)",
    "terminal": "\x1b[31mred\x1b]0;title\x07\x00\r\ndata: {}\n\nevent: end",
    "right to left": "abc\u202egnp.exe\u2066 \u05d0\u05d1\u05d2",
    "long": "x" * 10_000,
    "template": "{{constructor}} ${alert(1)} \"'`\\",
}


def status(number: int = 1, state: str = "running", **values: Any) -> BatchStatus:
    """The status of a job, numbered in the order of its start; running ones are at 41 %."""
    started = START + timedelta(hours=number)
    final = state in FINAL
    done = 1_000_000 if state == "completed" else 412_000
    stages = [
        ("plan", 0.8),
        ("fit", 6.4),
        ("detect", 52.0),
        ("combine", 3.1),
        ("validate", 0.9),
        ("publish", 0.4),
    ]
    times, at = [], started
    for stage, seconds in stages if state == "completed" else stages[:3]:
        ended = at + timedelta(seconds=seconds)
        times.append(StageTime(stage=stage, started=at, ended=ended if final or stage != "detect" else None))  # type: ignore[arg-type]
        at = ended
    given: dict[str, Any] = {
        "job_id": f"{number:016x}",
        "flow_run_id": f"00000000-0000-4000-8000-{number:012x}",
        "name": f"flights-{number}",
        "interval": "2026-02-28 – 2026-03-01",
        "state": state,
        "final": final,
        "stage": None if final else "detect",
        "stages": times,
        "chunks": ChunkCounts(total=1000, done=done // 1000, reused=20, retried=2, split=1),
        "rows": RowCounts(total=1_000_000, done=done, rejected=3),
        "percent": done / 10_000,
        "rows_per_second": None if final else 18_400.0,
        "average_rows_per_second": 16_900.0,
        "eta_seconds": None if final else 34.0,
        "anomalies": done // 1000,
        "threshold": 0.6180339 if final else None,
        "workers": () if final else WORKERS,
        "incidents": {"retried": 2, "split": 1},
        "alerts": (
            Alert(
                at=at,
                kind="retried",
                text="chunk 17: data/part-004.parquet cannot be read now; again in 1 s",
                chunk=17,
            ),
            Alert(at=at, kind="split", text="chunk 203: out of memory; in halves", chunk=203),
        ),
        "chunk_seconds": ChunkSeconds(counts=(3, 40, 120, 190, 50, 8, 1, 0, 0, 0, 0, 0, 0, 0), total=123.4),
        "started": started,
        "ended": at if final else None,
        "updated": at,
        "queue_seconds": 4.2,
        "source": "/data/flights/*.parquet",
        "output": f"/data/results/flights-{number}",
    }
    return BatchStatus.model_validate({**given, **values})


@dataclass
class Script:
    """Jobs as a test says; `reads` counts how often they were read."""

    jobs: dict[str | None, BatchStatus] = field(default_factory=dict)
    error: SiftlineError | None = None
    reads: int = 0

    @classmethod
    def of(cls, *statuses: BatchStatus) -> Script:
        return cls({one.job_id: one for one in statuses})

    def set(self, status: BatchStatus) -> None:
        self.jobs = {**self.jobs, status.job_id: status}

    def read(self) -> list[BatchStatus]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return list(self.jobs.values())


@contextmanager
def served(
    script: Script, access: Access | None = None, places: int = 200, port: int | None = None
) -> Iterator[str]:
    """A server of scripted jobs, in a thread; yields its address."""
    access, port, ready = access or Access.at("127.0.0.1", {}), port or free_port(), threading.Event()
    server = Server(Board(script.read, 0.05, places), access, "127.0.0.1", port, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
