"""Decisions about a running job: in its log, its events and its live record, each with its cause."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from prefect import get_client
from prefect.events import Event
from prefect.events.filters import EventFilter

from siftline.config.loading import parse_config
from siftline.engine import Adapting
from siftline.engine.stragglers import Pace
from siftline.flows.batch_detection import batch_detection
from siftline.jobs.live import LiveRecord, live_record
from siftline.stages import detect
from siftline.stages.scoring import score_chunk
from siftline.tasks.adapters.run_events import ALERT
from siftline.types import BatchResult
from tests.faults import Fault, Script, Scripted, wait_until
from tests.flows.batches import configuration, scores_digest
from tests.flows.records import log
from tests.support import undisturbed_digest

CHUNKS = 30


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have samples, decisions and second starts come at once."""
    monkeypatch.setattr("siftline.stages.detect.Adapting", partial(Adapting, seconds=0.05))
    monkeypatch.setattr("siftline.engine.dask_session.Pace", partial(Pace, least_seconds=1.0))


def alerts(result: BatchResult, number: int) -> list[Event]:
    """Return the alerts of a run, once so many have reached the server."""
    about = {"resource": {"id": [f"prefect.flow-run.{result.flow_run_id}"]}, "event": {"name": [ALERT]}}

    def read() -> list[Event] | None:
        with get_client(sync_client=True) as client:
            found = client.read_events(EventFilter.model_validate({**about, "order": "ASC"}), limit=50).events
        return found if len(found) >= number else None

    return wait_until(read, "the alerts have reached the server")


def test_every_decision_about_a_running_job_is_in_its_log_its_events_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: dict[str, list[Fault]] = {f"chunk {number}": ["gate"] for number in range(CHUNKS)}
    script = Script.write(tmp_path / "script", {**faults, "chunk 7": ["hang"]})
    monkeypatch.setattr(detect, "score_chunk", Scripted(score_chunk, script))

    def live() -> LiveRecord | None:
        found = list((tmp_path / "adapted").glob("checkpoint/jobs/*"))
        return live_record(found[0]).read_or(None) if found else None

    def open_gate() -> None:
        wait_until(lambda: (record := live()) and record.incidents.get("adapted"), "it is in the record")
        script.open_gate()

    opening = threading.Thread(target=open_gate)
    opening.start()
    cluster = {"workers": {"maximum": 2}, "memory_limit": "600MiB"}
    values = configuration(tmp_path / "adapted", chunk_rows=20, cluster=cluster)
    result = batch_detection(values)
    opening.join()

    assert (result.state, result.chunks_computed) == ("Completed", CHUNKS)
    assert scores_digest(result.output) == undisturbed_digest(parse_config(values))
    record = live()
    assert record is not None
    shown = [(one.kind, one.text, one.chunk) for one in record.alerts]
    assert [kind for kind, _, _ in shown] == ["adapted", "repeated"]
    (_, grown, _), (_, repeated, chunk) = shown
    assert grown == "scaled up to 2 workers: 30 chunks left for 1 worker"
    assert repeated.startswith("chunk 7 (rows 140-159): takes ")
    assert chunk == 7
    assert record.incidents == {"adapted": 1, "repeated": 1}
    assert record.allocation == "1 to 2 workers, each with 600 MiB"

    sent = [one.payload for one in alerts(result, 2)]
    assert [(one["kind"], one["text"], one["chunk"]) for one in sent] == shown
    text = log(result.flow_run_id)
    assert f"adapted: {grown}" in text
    assert f"repeated: {repeated}" in text
