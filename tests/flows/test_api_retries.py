"""A run is patient to its final state, and nothing else is; its heartbeats are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import FlowRunEngine
from prefect.settings import get_current_settings, temporary_settings

from siftline.flows.batch_detection import batch_detection
from siftline.flows.run.api_retries import PatientTaskRunner
from tests.faults import wait_until
from tests.flows.batches import configuration
from tests.flows.records import flow_run, task_runs

Seen = dict[str, tuple[int, int | None]]


def settings() -> tuple[int, int | None]:
    current = get_current_settings()
    return current.client.max_retries, current.flows.heartbeat_frequency


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The settings in the flow, and when its final state is set."""
    # Prefect's own heartbeats begin with it.
    monkeypatch.setattr(FlowRunEngine, "_build_heartbeat_event_template", None)
    return {}


def run(seen: Seen, fail: bool = False) -> None:
    def final(flow: object, run: object, state: object) -> None:
        seen["final state"] = settings()

    @flow(task_runner=PatientTaskRunner(), on_completion=[final], on_failure=[final])
    def patient() -> None:
        seen["flow"] = settings()
        if fail:
            raise ValueError

    patient(return_state=True)


@pytest.mark.parametrize("fail", [False, True])
def test_a_run_is_patient_to_its_end_and_then_no_more(seen: Seen, fail: bool) -> None:
    with temporary_settings({"flows.heartbeat_frequency": 180}):
        before = settings()

        run(seen, fail)

        assert settings() == before == (5, 180)
    assert seen == dict.fromkeys(["flow", "final state"], (7, None))


def test_whoever_wants_more_patience_keeps_it(seen: Seen) -> None:
    with temporary_settings({"client.max_retries": 9, "flows.heartbeat_frequency": None}):
        run(seen)

    assert seen["flow"] == (9, None)


def heartbeats_of(run: UUID | None) -> list[Any]:
    chosen = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": chosen})
    events: list[Any] = answer.json()["events"]
    return events


@pytest.mark.parametrize(("frequency", "heard"), [(180, True), (None, False)])
def test_a_run_sends_heartbeats_for_the_automation_unless_they_are_turned_off(
    tmp_path: Path, frequency: int | None, heard: bool
) -> None:
    with temporary_settings({"flows.heartbeat_frequency": frequency}):
        result = batch_detection(configuration(tmp_path))

    run = flow_run(result.flow_run_id)
    if heard:
        events = wait_until(lambda: heartbeats_of(run.id), "the heartbeat has arrived")
        assert len(events) == 1
        related = {one["prefect.resource.role"]: one for one in events[0]["related"]}
        assert related["flow"]["prefect.resource.name"] == "batch-detection"
        assert events[0]["resource"]["prefect.resource.name"] == run.name
    else:
        task_runs(run.id)  # the last events are there
        assert heartbeats_of(run.id) == []
