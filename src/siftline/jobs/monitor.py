"""Monitor of a run: gathers what its stages and workers emit into a `LiveRecord`."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime

from siftline.batch_plan import BatchPlan
from siftline.jobs.live import (
    CHUNK_SECONDS,
    Alert,
    ChunkCounts,
    ChunkSeconds,
    LiveRecord,
    RowCounts,
    Sample,
    StageTime,
)
from siftline.progress import Incident, Progress, Queued, Report, Stage, Usage

_MOST_ALERTS = 50
_MOST_SAMPLES = 240
_MOST_NEWS = 1_000
_RECENT_SECONDS = 10.0


@dataclass(frozen=True)
class _Speed:
    """Rows that this run has scored by a moment."""

    at: datetime
    rows: int


class Monitor:
    """Listener of a run's reports; `record` may be called from any thread.

    The timeline has at most 240 points: once full, every second one is dropped, and fewer are added.
    """

    def __init__(self, run: str, name: str, due: datetime | None = None) -> None:
        now = datetime.now(UTC)
        self._due = due or now
        self._lock = threading.Lock()
        self._record = LiveRecord(run=run, name=name, started=now, updated=now)
        self._stages: list[StageTime] = []
        self._alerts: deque[Alert] = deque(maxlen=_MOST_ALERTS)
        self._incidents: Counter[str] = Counter()
        self._counts = [0] * (len(CHUNK_SECONDS) + 1)
        self._seconds = 0.0
        self._timeline: list[Sample] = []
        self._every = self._ticks = 0
        self._first: _Speed | None = None
        self._recent: deque[_Speed] = deque()
        self.news: deque[Alert | StageTime] = deque()

    def begin(self, plan: BatchPlan, interval: str | None) -> None:
        """Take the totals of the planned job."""
        update = {
            "interval": interval,
            "source": plan.config.source.path,
            "output": str(plan.output.root),
            "token": plan.token,
            "commit_every": plan.commit_every,
            "chunks": ChunkCounts(total=len(plan.chunks)),
            "rows": RowCounts(total=plan.rows),
        }
        with self._lock:
            self._record = self._record.model_copy(update=update)

    def allot(self, allocation: str) -> None:
        """Take the allocation, in words; the run does not wait for it any more."""
        with self._lock:
            waited = max(0.0, (datetime.now(UTC) - self._due).total_seconds())
            update = {"allocation": allocation, "queued": None, "queue_seconds": waited}
            self._record = self._record.model_copy(update=update)

    def __call__(self, report: Report) -> None:
        """Take a report."""
        now = datetime.now(UTC)
        with self._lock:
            if isinstance(report, Progress):
                self._progress(report, now)
            elif isinstance(report, Incident):
                self._incidents[report.kind] += 1
                alert = Alert(at=now, kind=report.kind, text=report.text, chunk=report.chunk)
                self._alerts.append(alert)
                if len(self.news) < _MOST_NEWS:  # stages are few, and never left out
                    self.news.append(alert)
            elif isinstance(report, Queued):
                self._record = self._record.model_copy(update={"queued": report})
            elif isinstance(report, Usage):
                most = max((worker.memory or 0 for worker in report.workers), default=0)
                update = {
                    "workers": report.workers,
                    "dashboard": report.dashboard,
                    "worker_memory": max(most, self._record.worker_memory or 0) or None,
                }
                self._record = self._record.model_copy(update=update)

    def record(self, ended: bool = False) -> LiveRecord:
        """Return the state of now, as one more point of the timeline; the last one when `ended`."""
        now = datetime.now(UTC)
        with self._lock:
            if ended:
                self._enter(None, now)
            self._sample(now, ended)
            update = {
                "updated": now,
                "ended": now if ended else None,
                "stages": tuple(self._stages),
                "alerts": tuple(self._alerts),
                "incidents": dict(self._incidents),
                "chunk_seconds": ChunkSeconds(counts=tuple(self._counts), total=self._seconds),
                "timeline": tuple(self._timeline),
                "rows_per_second": None if ended else self._recent_speed(now),
                "workers": () if ended else self._record.workers,
            }
            self._record = self._record.model_copy(update=update)
            return self._record

    def _progress(self, report: Progress, now: datetime) -> None:
        self._enter(report.stage, now)
        if report.stage != "detect":
            return
        rows = _Speed(now, report.rows_done)
        self._first = self._first or rows
        self._recent.append(rows)
        while (now - self._recent[0].at).total_seconds() > _RECENT_SECONDS and len(self._recent) > 2:
            self._recent.popleft()
        if report.chunk_seconds is not None:
            self._counts[bisect_left(CHUNK_SECONDS, report.chunk_seconds)] += 1
            self._seconds += report.chunk_seconds
        update = {
            "chunks": ChunkCounts(
                total=report.chunks_total,
                done=report.chunks_done,
                reused=report.reused,
                failed=report.failed,
                retried=report.retried,
                split=report.split,
            ),
            "rows": RowCounts(total=report.rows_total, done=report.rows_done, rejected=report.rejected),
            "anomalies": report.anomalies,
            "average_rows_per_second": _speed(self._first, rows),
        }
        self._record = self._record.model_copy(update=update)

    def _enter(self, stage: Stage | None, now: datetime) -> None:
        last = self._stages[-1] if self._stages else None
        if last is not None and last.stage == stage:
            return
        if last is not None and last.ended is None:
            self._stages[-1] = last.model_copy(update={"ended": now})
        if stage is not None:
            self._stages.append(StageTime(stage=stage, started=now))
            self.news.append(self._stages[-1])

    def _sample(self, now: datetime, last: bool) -> None:
        self._ticks += 1
        if self._ticks <= self._every and not last:
            return
        self._ticks = 0
        if len(self._timeline) == _MOST_SAMPLES:
            self._timeline = self._timeline[::2]
            self._every = 2 * self._every + 1
        record = self._record
        self._timeline.append(
            Sample(
                at=now,
                rows=record.rows.done,
                chunks=record.chunks.done,
                retries=self._incidents["retried"]
                + self._incidents["worker lost"]
                + self._incidents["split"],
                workers=len(record.workers),
                memory=sum(worker.memory or 0 for worker in record.workers),
            )
        )

    def _recent_speed(self, now: datetime) -> float | None:
        if not self._recent or self._stages[-1].stage != "detect":
            return None
        return _speed(self._recent[0], _Speed(now, self._recent[-1].rows))


def _speed(first: _Speed, last: _Speed) -> float | None:
    seconds = (last.at - first.at).total_seconds()
    speed = (last.rows - first.rows) / seconds if seconds > 0 else math.nan
    return speed if speed > 0 else None
