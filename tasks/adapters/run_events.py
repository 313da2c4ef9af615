"""Events of the present run about its work: stages, commits and alerts, with a bounded rate."""

from __future__ import annotations

import time
from typing import Any

from prefect.events import emit_event

from siftline.jobs.live import Alert, LiveRecord
from siftline.jobs.monitor import Monitor
from siftline.shown import one_line
from siftline.tasks.adapters.present import present_run

STAGE = "siftline.job.stage"
CHECKPOINT = "siftline.job.checkpoint"
ALERT = "siftline.job.alert"
_CHUNK_EVENTS = {
    "retried": "siftline.chunk.retried",
    "worker lost": "siftline.chunk.retried",
    "split": "siftline.chunk.split",
    "rejected": "siftline.chunk.quarantined",
    "chunk failed": "siftline.chunk.failed",
}
NAMES = (STAGE, CHECKPOINT, ALERT, *sorted(set(_CHUNK_EVENTS.values())))
# Alerts: some at once, then one a second. Commits: a hundred in a run, but one in five seconds at least.
_BURST = 50.0
_COMMITS = 100
_LONGEST_PAUSE = 5.0
_LONGEST_TEXT = 1_000


class RunEvents:
    """Sends a monitor's news as events about the run; an alert has the number dropped since the last one."""

    def __init__(self, monitor: Monitor) -> None:
        self._run = present_run()
        self._monitor = monitor
        self._began = self._filled = self._committed = time.monotonic()
        self._allowed = _BURST
        self._accounted = self._dropped = 0
        self._chunks = -1

    def send(self, record: LiveRecord, job: str | None) -> None:
        """Send the news since the last call; `record` is that of now."""
        now = time.monotonic()
        self._allowed, self._filled = min(_BURST, self._allowed + now - self._filled), now
        while self._monitor.news:
            news = self._monitor.news.popleft()
            if isinstance(news, Alert):
                self._alert(news, job)
            else:
                self._emit(STAGE, {"job_id": job, "stage": news.stage, "record": _short(record)})
        self._dropped = max(0, sum(record.incidents.values()) - self._accounted)
        pause = min(_LONGEST_PAUSE, (now - self._began) / _COMMITS)
        changed = record.chunks.done != self._chunks
        if record.rows.total and changed and (now - self._committed >= pause or record.ended):
            self._committed, self._chunks = now, record.chunks.done
            self._emit(CHECKPOINT, {"job_id": job, "record": _short(record)})

    def _alert(self, alert: Alert, job: str | None) -> None:
        if self._allowed < 1:
            return
        self._allowed -= 1
        self._accounted += 1 + self._dropped
        payload = {
            "job_id": job,
            "kind": alert.kind,
            "chunk": alert.chunk,
            "text": one_line(alert.text[:_LONGEST_TEXT]),
        }
        self._emit(_CHUNK_EVENTS.get(alert.kind, ALERT), payload | {"dropped": self._dropped})
        self._dropped = 0

    def _emit(self, event: str, payload: dict[str, Any]) -> None:
        if self._run is not None:
            about = {"prefect.resource.id": f"prefect.flow-run.{self._run.id}"}
            emit_event(event, about | {"prefect.resource.name": self._run.name}, payload=payload)


def _short(record: LiveRecord) -> dict[str, Any]:
    """Return a record in bounded size: without the timeline, the alerts and all but a few workers."""
    few = record.model_copy(update={"timeline": (), "alerts": (), "workers": record.workers[:20]})
    return few.model_dump(mode="json")
