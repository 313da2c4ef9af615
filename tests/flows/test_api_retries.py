"""A run is patient from its first heartbeat to its final state, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow
from prefect.flow_engine import FlowRunEngine
from prefect.settings import get_current_settings, temporary_settings

from siftline.flows.run.api_retries import PatientTaskRunner

Seen = dict[str, tuple[int, int | None]]


def settings() -> tuple[int, int | None]:
    current = get_current_settings()
    return current.client.max_retries, current.flows.heartbeat_frequency


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The settings when the heartbeats begin, in the flow, and when its final state is set."""
    seen: Seen = {}
    prepare = FlowRunEngine._build_heartbeat_event_template

    def heartbeats(engine: FlowRunEngine[Any, Any]) -> Any:
        seen["heartbeats"] = (get_current_settings().client.max_retries, engine.heartbeat_seconds)
        return prepare(engine)

    monkeypatch.setattr(FlowRunEngine, "_build_heartbeat_event_template", heartbeats)
    return seen


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
    assert seen == dict.fromkeys(["heartbeats", "flow", "final state"], (7, 30))


def test_whoever_wants_more_patience_keeps_it(seen: Seen) -> None:
    with temporary_settings({"client.max_retries": 9, "flows.heartbeat_frequency": None}):
        run(seen)

    assert seen["flow"] == (9, None)
