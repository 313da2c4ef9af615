"""Metrics: valid exposition, counters that never fall, labels that stay few, and queries that match them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from siftline.jobs.live import CHUNK_SECONDS, ChunkCounts, ChunkSeconds, RowCounts
from siftline.jobs.status import BatchStatus
from siftline.monitoring.metrics import Metrics
from tests.unit.monitoring.boards import HOSTILE, Script, served, status

DASHBOARD = Path(__file__).resolve().parents[3] / "deployments" / "grafana-dashboard.json"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def progress(number: int, done: int, **values: Any) -> BatchStatus:
    """A job of the pipeline `one` with so many chunks of ten rows done, each in 0.3 seconds."""
    counts = [0] * (len(CHUNK_SECONDS) + 1)
    counts[3] = done
    given = {
        "name": "one",
        "chunks": ChunkCounts(total=100, done=done),
        "rows": RowCounts(total=1000, done=10 * done),
        "chunk_seconds": ChunkSeconds(counts=tuple(counts), total=0.3 * done),
        "incidents": {"retried": done // 10},
    }
    return status(number, **{**given, **values})


def test_the_exposition_can_be_parsed_and_has_every_metric_documented() -> None:
    with served(Script.of(status(1), status(2, "completed"), status(3, "failed"))) as url:
        answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert all(family.documentation for family in families.values())
    reference = (DASHBOARD.parents[1] / "docs/reference/api.md").read_text(encoding="utf-8")
    for name, family in families.items():
        shown = f"{name}_total" if family.type == "counter" else name
        assert f"\n| `{shown}" in reference, shown


def test_gauges_say_what_storage_says() -> None:
    one = [
        status(1, "completed", name="one"),
        status(2, "running", name="one"),
        status(3, "failed", name="one"),
    ]
    found = samples(Metrics().exposition(one))

    assert value(found, "siftline_jobs", pipeline="one", state="running") == 1
    assert value(found, "siftline_progress_ratio", pipeline="one") == 0.412
    assert value(found, "siftline_workers", pipeline="one") == 2
    assert value(found, "siftline_worker_memory_bytes", pipeline="one") == 2 * (412 << 20)
    assert value(found, "siftline_worker_cpu_cores", pipeline="one") == pytest.approx(1.42)
    assert value(found, "siftline_anomalies", pipeline="one") == 1000
    assert one[0].ended is not None
    assert value(found, "siftline_last_success_timestamp_seconds", pipeline="one") == one[0].ended.timestamp()
    assert value(found, "siftline_last_duration_seconds", pipeline="one") == pytest.approx(63.6)
    assert value(found, "siftline_queue_wait_seconds", pipeline="one") == 4.2


def test_counters_begin_with_zero_and_count_what_is_done_from_then_on() -> None:
    metrics = Metrics()
    before = samples(metrics.exposition([progress(1, 40)]))
    after = samples(metrics.exposition([progress(2, 5), progress(1, 100, state="completed", final=True)]))

    assert value(before, "siftline_rows_total", pipeline="one") == 0
    assert value(after, "siftline_rows_total", pipeline="one") == 650
    assert value(after, "siftline_chunks_total", pipeline="one") == 65
    assert value(after, "siftline_retries_total", pipeline="one") == 6
    assert value(after, "siftline_incidents_total", pipeline="one", kind="retried") == 6
    assert value(after, "siftline_chunk_seconds_bucket", pipeline="one", le="0.25") == 0
    assert value(after, "siftline_chunk_seconds_bucket", pipeline="one", le="0.5") == 65
    assert value(after, "siftline_chunk_seconds_bucket", pipeline="one", le="+Inf") == 65
    assert value(after, "siftline_chunk_seconds_count", pipeline="one") == 65
    assert value(after, "siftline_chunk_seconds_sum", pipeline="one") == pytest.approx(19.5)


def test_rows_of_a_resumed_job_count_once_and_its_retries_by_run() -> None:
    metrics = Metrics()
    metrics.exposition([progress(1, 0)])
    metrics.exposition([progress(1, 50)])
    found = samples(metrics.exposition([progress(1, 45, started=status(2).started)]))

    assert value(found, "siftline_rows_total", pipeline="one") == 500
    assert value(found, "siftline_retries_total", pipeline="one") == 5 + 4


@given(
    st.lists(
        st.dictionaries(st.integers(1, 3), st.tuples(st.integers(0, 100), st.integers(1, 2))), max_size=6
    )
)
def test_counters_never_fall(readings: list[dict[int, tuple[int, int]]]) -> None:
    metrics = Metrics()
    before: Samples = {}
    for reading in readings:
        jobs = [progress(job, done, started=status(run).started) for job, (done, run) in reading.items()]
        now = samples(metrics.exposition(jobs))
        for (name, labels), past in before.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                assert now[name, labels] >= past
        before = now


def test_pipelines_beyond_a_hundred_are_one_label() -> None:
    metrics = Metrics()
    for first in (0, 100):
        many = [status(number + 1, name=f"pipeline-{number}") for number in range(first, first + 150)]
        found = samples(metrics.exposition(many))

    labels = {dict(labels)["pipeline"] for _, labels in found}
    assert len(labels) <= 101
    assert value(found, "siftline_jobs", pipeline="other", state="running") == 150


def test_no_job_and_no_run_is_a_label() -> None:
    text = Metrics().exposition([status(1)])

    assert f"{1:016x}".encode() not in text
    assert b"00000000-0000" not in text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_names_cannot_break_out_of_a_label(text: str) -> None:
    hostile = status(1, name=text, incidents={text: 3})
    found = samples(Metrics().exposition([hostile, status(2, name="harmless")]))

    assert value(found, "siftline_jobs", pipeline="harmless", state="running") == 1
    assert {dict(labels)["pipeline"] for _, labels in found} == {text[:200], "harmless"}


def test_metrics_are_refused_while_storage_cannot_be_read() -> None:
    from siftline.errors import StorageUnavailable

    script = Script.of(status(1))
    script.error = StorageUnavailable("/mnt: input/output error", "check the mount")
    with served(script) as url:
        assert httpx.get(f"{url}/metrics").status_code == 503


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@pytest.mark.parametrize("query", queries())
def test_the_dashboard_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    found = samples(Metrics().exposition([status(1), status(2, "completed"), status(3, "failed")]))
    labels: dict[str, set[str]] = {}
    for name, of in found:
        labels.setdefault(name, set()).update(dict(of))

    names = re.findall(r"\bsiftline_\w+", query)
    assert names
    for name in names:
        assert name in labels
    for name, chosen in re.findall(r"\b(siftline_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*[=!]~?", chosen)) <= labels[name]
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(re.findall(r"\w+", grouped)) <= set.union(*(labels[name] for name in names))


def test_the_dashboard_shows_every_metric_and_works_with_any_data_source() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for query in queries()
        for name in re.findall(r"siftline_\w+", query)
    }
    families = text_string_to_metric_families(
        Metrics().exposition([status(1), status(2, "completed")]).decode()
    )
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}

    assert shown == names
    assert [one["type"] for one in dashboard["templating"]["list"]] == ["datasource", "query"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
