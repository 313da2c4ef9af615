"""Metrics of all jobs in Prometheus' text format.

A gauge is what storage says now. A counter counts what happens while this process runs, from zero: that
storage forgets a job, or a run starts over, never makes it fall.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import ClassVar

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from siftline.jobs.live import CHUNK_SECONDS
from siftline.jobs.status import BatchStatus

OTHER = "other"
_SUCCESSES = ("completed", "rejected")
_COUNTERS = {
    "siftline_rows": "Rows scored, each row of a job once.",
    "siftline_chunks": "Chunks scored, each chunk of a job once.",
    "siftline_retries": "Chunks put back for another attempt.",
}
_LATEST = {
    "siftline_anomalies": "Anomalies of the last job that succeeded.",
    "siftline_rejected_rows": "Rows without a score in the last job that succeeded.",
    "siftline_queue_wait_seconds": "Seconds that the last run waited for its start.",
    "siftline_last_success_timestamp_seconds": "Time at which the last job that succeeded ended.",
    "siftline_last_duration_seconds": "Seconds that its run took.",
}
_NOW = {
    "siftline_progress_ratio": "Share of the rows of unfinished jobs that is scored.",
    "siftline_rows_per_second": "Rows scored per second, over the last seconds.",
    "siftline_workers": "Workers at work.",
    "siftline_worker_cpu_cores": "Cores that the workers use.",
    "siftline_worker_memory_bytes": "Memory that the workers use.",
    "siftline_worker_memory_limit_bytes": "Memory that the workers may use.",
}


class Metrics:
    """The counters of this process, and the exposition of them and of the gauges."""

    MEDIA_TYPE: ClassVar = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._pipelines = _Bounded(100)
        self._kinds = _Bounded(20)
        self._counts: defaultdict[str, dict[tuple[str, str], float]] = defaultdict(_zeros)
        self._seen: dict[tuple[object, ...], float] | None = None
        self._alone = Lock()

    def exposition(self, statuses: Sequence[BatchStatus]) -> bytes:
        """Return the metrics as text, given the present status of all jobs, newest first."""
        with self._alone:
            by_pipeline: defaultdict[str, list[BatchStatus]] = defaultdict(list)
            for status in statuses:
                by_pipeline[self._pipelines.label(status.pipeline or status.name)].append(status)
            self._count(by_pipeline)
            return generate_latest(_Families([*_gauges(by_pipeline), *self._counters()]))

    def _count(self, by_pipeline: Mapping[str, Sequence[BatchStatus]]) -> None:
        """Add what has happened since the last time; the first time, nothing."""
        before, self._seen = self._seen, {}
        for pipeline, statuses in by_pipeline.items():
            counts = self._counts[pipeline]
            for status in statuses:
                for (run, metric, label), value in self._amounts(status).items():
                    key = (status.job_id, run, metric, label)
                    past = value if before is None else before.get(key, 0.0)
                    self._seen[key] = max(value, past)
                    counts[metric, label] += max(value - past, 0.0)

    def _amounts(self, status: BatchStatus) -> dict[tuple[object, str, str], float]:
        """Return what a job has counted so far: some of it as a job, some in its present run."""
        run = status.started
        amounts: dict[tuple[object, str, str], float] = {
            (None, "siftline_rows", ""): status.rows.done,
            (None, "siftline_chunks", ""): status.chunks.done,
            (run, "siftline_retries", ""): status.incidents.get("retried", 0),
            (run, "siftline_chunk_seconds", "sum"): status.chunk_seconds.total,
        }
        for number, count in enumerate(status.chunk_seconds.counts):
            amounts[run, "siftline_chunk_seconds", str(number)] = count
        for kind, count in status.incidents.items():
            amounts[run, "siftline_incidents", self._kinds.label(kind)] = count
        return amounts

    def _counters(self) -> Iterator[Metric]:
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["pipeline"])
            for pipeline, counts in self._counts.items():
                counter.add_metric([pipeline], counts[name, ""])
            yield counter
        incidents = CounterMetricFamily(
            "siftline_incidents", "Incidents of runs.", labels=["pipeline", "kind"]
        )
        seconds = HistogramMetricFamily(
            "siftline_chunk_seconds", "Seconds that a worker took for a chunk.", labels=["pipeline"]
        )
        for pipeline, counts in self._counts.items():
            for metric, kind in sorted(counts):
                if metric == "siftline_incidents":
                    incidents.add_metric([pipeline, kind], counts[metric, kind])
            numbers = [str(number) for number in range(len(CHUNK_SECONDS) + 1)]
            totals = accumulate(counts["siftline_chunk_seconds", number] for number in numbers)
            bounds = [*map(str, CHUNK_SECONDS), "+Inf"]
            buckets = [*zip(bounds, totals, strict=True)]
            seconds.add_metric([pipeline], buckets, counts["siftline_chunk_seconds", "sum"])
        yield from (incidents, seconds)


def _zeros() -> dict[tuple[str, str], float]:
    return defaultdict(float)


class _Bounded:
    """The first labels to come, up to a number; all later ones are one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._labels: set[str] = set()

    def label(self, text: str) -> str:
        """Return the label for a text, in place of what is not Unicode."""
        text = text.encode("utf-8", "replace").decode()[:200]
        if len(self._labels) < self._most:
            self._labels.add(text)
        return text if text in self._labels else OTHER


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(by_pipeline: Mapping[str, Sequence[BatchStatus]]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("siftline_jobs", "Jobs in the checkpoint.", labels=["pipeline", "state"])
    for pipeline, statuses in by_pipeline.items():
        for state, count in sorted(Counter(status.state for status in statuses).items()):
            jobs.add_metric([pipeline, state], count)
    yield jobs
    values = {pipeline: {**_now(found), **_latest(found)} for pipeline, found in by_pipeline.items()}
    for name, text in {**_NOW, **_LATEST}.items():
        gauge = GaugeMetricFamily(name, text, labels=["pipeline"])
        for pipeline, of in values.items():
            value = of.get(name)
            if value is not None:
                gauge.add_metric([pipeline], value)
        yield gauge


def _now(statuses: Sequence[BatchStatus]) -> dict[str, float | None]:
    """Return the gauges of the unfinished jobs of a pipeline."""
    active = [status for status in statuses if not status.final]
    workers = [worker for status in active for worker in status.workers]
    total = sum(status.rows.total for status in active)
    return {
        "siftline_progress_ratio": sum(status.rows.done for status in active) / total if total else None,
        "siftline_rows_per_second": sum(status.rows_per_second or 0.0 for status in active),
        "siftline_workers": len(workers),
        "siftline_worker_cpu_cores": sum(worker.cpu or 0.0 for worker in workers) / 100,
        "siftline_worker_memory_bytes": sum(worker.memory or 0 for worker in workers),
        "siftline_worker_memory_limit_bytes": sum(worker.memory_limit or 0 for worker in workers),
    }


def _latest(statuses: Sequence[BatchStatus]) -> dict[str, float | None]:
    """Return the gauges of the last job of a pipeline, and of the last that succeeded."""
    latest: dict[str, float | None] = {"siftline_queue_wait_seconds": statuses[0].queue_seconds}
    ended = [(status.ended, status) for status in statuses if status.state in _SUCCESSES and status.ended]
    if not ended:
        return latest
    end, last = max(ended, key=lambda found: found[0])
    return {
        **latest,
        "siftline_anomalies": last.anomalies,
        "siftline_rejected_rows": last.rows.rejected,
        "siftline_last_success_timestamp_seconds": end.timestamp(),
        "siftline_last_duration_seconds": (end - last.started).total_seconds() if last.started else None,
    }
