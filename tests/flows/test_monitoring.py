"""Monitoring of a run on a real server: its events, log, live record and spans, never its outcome."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prefect import get_client
from prefect.events import Event
from prefect.events.filters import EventFilter
from prefect.settings import PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY, temporary_settings

from siftline.errors import StorageUnavailable
from siftline.flows.batch_detection import batch_detection
from siftline.flows.run import lifecycle
from siftline.jobs.live import LiveRecord, live_record
from siftline.progress import Stage
from siftline.stages import detect
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.storage.records import RecordFile
from siftline.tasks.adapters import run_events
from siftline.tasks.adapters.monitoring import monitored
from siftline.types import BatchResult, ChunkReceipt
from tests.faults import wait_until
from tests.flows.batches import configuration
from tests.flows.records import STEPS, flow_run, log

STAGES: list[Stage] = ["plan", "fit", "detect", "combine", "validate", "publish", "notify"]
NO_DELAY = {"attempts": 2, "delay_seconds": 0}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish the record of a run a hundred times a second."""
    monkeypatch.setattr(lifecycle, "monitored", functools.partial(monitored, seconds=0.01))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[LiveRecord]:
    """The live records that were written, in order."""
    records: list[LiveRecord] = []
    write = RecordFile.write

    def note(self: RecordFile[Any], value: Any, durable: bool = True) -> None:
        write(self, value, durable)
        if isinstance(value, LiveRecord):
            records.append(value)

    monkeypatch.setattr(RecordFile, "write", note)
    return records


def troubled(directory: Path, name: str) -> dict[str, Any]:
    """A configuration of 30 chunks, with a row that cannot be scored."""
    values = configuration(directory, chunk_rows=20, name=name, retries=NO_DELAY, tolerate={"rows": 1})
    source = Path(values["source"]["path"])
    table = pq.read_table(source)
    amounts = table["amount"].to_numpy().copy()
    amounts[599] = np.inf
    column = table.column_names.index("amount")
    pq.write_table(table.set_column(column, "amount", pa.array(amounts)), source)
    return values


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk 1 fails at its first attempt, and chunk 2 has something to say."""
    attempts: Counter[int] = Counter()

    def score(task: ChunkTask) -> ChunkReceipt:
        attempts[task.chunk.index] += 1
        if task.chunk.index == 1 and attempts[1] == 1:
            raise StorageUnavailable("part-1: Input/output error", "check the disk")
        if task.chunk.index == 2:
            logging.getLogger("company.scorer").warning("odd <b>\x1b[31m%s\n</b>", "values")
        return score_chunk(task)

    monkeypatch.setattr(detect, "score_chunk", score)


def events_of(result: BatchResult, last: str = "siftline.job.stage") -> list[Event]:
    """The events of a run about its work, in order, once the last ones have reached the server."""
    about = {"resource": {"id": [f"prefect.flow-run.{result.flow_run_id}"]}}
    chosen = EventFilter.model_validate({**about, "event": {"prefix": ["siftline."]}, "order": "ASC"})

    def read() -> list[Event] | None:
        with get_client(sync_client=True) as client:
            found = client.read_events(chosen, limit=50).events
        notified = any(one.payload.get("stage") == "notify" for one in found)
        return found if notified and any(one.event == last for one in found) else None

    return wait_until(read, "the events have reached the server")


def test_a_run_sends_its_stages_its_commits_and_its_alerts_and_logs_what_its_workers_say(
    tmp_path: Path, often: None, faults: None, written: list[LiveRecord]
) -> None:
    result = batch_detection(troubled(tmp_path, "troubled"))

    assert result.state == "CompletedWithRejects"
    found = events_of(result, last="siftline.job.rejects")
    stages = [one for one in found if one.event == "siftline.job.stage"]
    assert [one.payload["stage"] for one in stages] == STAGES
    assert [one.payload["job_id"] for one in stages[1:]] == [result.job_id] * 6
    (retried,) = [one for one in found if one.event == "siftline.chunk.retried"]
    assert (retried.payload["chunk"], retried.payload["dropped"]) == (1, 0)
    assert "part-1: Input/output error; attempt 2" in retried.payload["text"]
    (quarantined,) = [one for one in found if one.event == "siftline.chunk.quarantined"]
    assert (quarantined.payload["chunk"], quarantined.payload["job_id"]) == (29, result.job_id)
    commits = [one for one in found if one.event == "siftline.job.checkpoint"]
    assert commits
    last = LiveRecord.model_validate(commits[-1].payload["record"])
    assert (last.run, last.chunks.done, last.chunks.total) == (result.flow_run_id, 30, 30)
    assert {one.event for one in found} == {
        *("siftline.job.stage", "siftline.job.checkpoint", "siftline.job.rejects"),
        *("siftline.chunk.retried", "siftline.chunk.quarantined"),
    }

    text = log(result.flow_run_id)
    assert "chunk 2 (rows 40-59): company.scorer: odd <b>�[31mvalues </b>" in text
    assert "retried: chunk 1 (rows 20-39): part-1: Input/output error" in text

    for values in (
        [one.chunks.done for one in written],
        [one.rows.done for one in written],
        [sum(one.incidents.values()) for one in written],
    ):
        assert values == sorted(values), "it never goes backwards"
    record = written[-1]
    assert (record.rows.done, record.rows.rejected, record.chunks.retried) == (600, 1, 1)
    assert ([one.stage for one in record.stages], record.stage) == (STAGES, None)
    assert record.incidents == {"retried": 1, "rejected": 1}
    assert sum(record.chunk_seconds.counts) == 30
    assert record.ended is not None
    assert (tmp_path / "checkpoint" / "jobs" / result.job_id / "live.json").exists()


def test_a_live_record_that_cannot_be_written_changes_nothing(
    tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(task: ChunkTask) -> ChunkReceipt:
        live = Path(task.parts).parent / "live.json"
        while not live.is_dir():
            live.unlink(missing_ok=True)
            with suppress(FileExistsError):  # written meanwhile
                live.mkdir()
        return score_chunk(task)

    monkeypatch.setattr(detect, "score_chunk", score)
    result = batch_detection(configuration(tmp_path))

    assert result.state == "Completed"
    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert log(result.flow_run_id).count("the run goes on without its live record") == 1


def test_events_that_cannot_be_sent_change_nothing(
    tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise ConnectionError("the events are refused")

    monkeypatch.setattr(run_events, "emit_event", refuse)
    result = batch_detection(configuration(tmp_path))

    assert (result.state, flow_run(result.flow_run_id).state_name) == ("Completed", "Completed")
    text = log(result.flow_run_id)
    assert text.count("the run goes on without its events: the events are refused") == 1
    directory = tmp_path / "checkpoint" / "jobs" / result.job_id
    assert live_record(directory).read().chunks.done == 3, "it is written all the same"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Spans of this process: a tracer provider is set once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    with temporary_settings({PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY: True}):
        yield exporter
    exporter.clear()


def test_every_step_is_a_span_below_that_of_the_run_with_its_step_and_its_job(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    result = batch_detection(configuration(tmp_path))

    found = {span.name: span for span in spans.get_finished_spans()}
    (run,) = [span for span in found.values() if attributes(span)["prefect.run.type"] == "flow"]
    steps = {name: found[name] for name in STEPS}
    assert {span.parent.span_id for span in steps.values() if span.parent} == {run.context.span_id}
    assert {span.context.trace_id for span in steps.values()} == {run.context.trace_id}
    assert {name: attributes(span)["siftline.step"] for name, span in steps.items()} == {
        **dict.fromkeys(STEPS, "batch_processing"),
        "validate_results": "result_validation",
        "notify": "notification",
    }
    jobs = {name: attributes(span).get("siftline.job_id") for name, span in steps.items()}
    assert jobs == {**dict.fromkeys(STEPS, result.job_id), "plan_batch": None, "notify": None}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
