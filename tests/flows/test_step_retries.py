"""Retries of steps by Prefect: of faults that pass, as often as the pipeline says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from siftline.errors import SiftlineError, SourceError, StorageUnavailable
from siftline.flows.batch_detection import batch_detection
from tests.faults import wait_until
from tests.flows.batches import configuration
from tests.flows.records import flow_run, task_runs

STEPS = {
    "plan_batch": "siftline.stages.plan:plan_batch",
    "validate_results": "siftline.stages.validate:validate_results",
    "publish_results": "siftline.stages.publish:publish_results",
    "notify": "siftline.tasks.notify:deliver",
}
HICCUP = StorageUnavailable("the disk is away", "try again")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, SiftlineError, int], list[object]]:
    """Let a function fail some times; the list grows with each call."""

    def fail(name: str, error: SiftlineError, times: int) -> list[object]:
        calls: list[object] = []
        function = resolve_name(name)

        def failing(*given: Any, **more: Any) -> Any:
            calls.append(given)
            if len(calls) <= times:
                raise error
            return function(*given, **more)

        monkeypatch.setattr(name.replace(":", "."), failing)
        return calls

    return fail


def states(run_id: object, step: str) -> list[str]:
    """The names of the states that a step went through."""
    run = task_runs(str(run_id), last=step)[step]
    with get_client(sync_client=True) as client:

        def read() -> list[str] | None:
            names = [state.name for state in client.read_task_run_states(run.id)]
            return names if names[-1:] in (["Completed"], ["Failed"]) else None

        return wait_until(read, "the states have reached the server")


@pytest.mark.parametrize(("step", "function"), STEPS.items(), ids=STEPS)
def test_a_storage_hiccup_shows_as_awaiting_retry_and_then_completed(
    tmp_path: Path, failing: Callable[..., list[object]], step: str, function: str
) -> None:
    calls = failing(function, HICCUP, 1)

    result = batch_detection(configuration(tmp_path))

    assert (result.state, len(calls)) == ("Completed", 2)
    found = states(result.flow_run_id, step)
    assert "AwaitingRetry" in found
    assert found[-1] == "Completed"


@pytest.mark.parametrize(
    ("error", "retries", "calls"),
    [(HICCUP, None, 3), (HICCUP, {"attempts": 1}, 1), (SourceError("it is broken", "repair it"), None, 1)],
    ids=["twice by default", "as the step says", "not where it does not help"],
)
def test_a_step_that_keeps_failing_fails_the_run(
    tmp_path: Path,
    failing: Callable[..., list[object]],
    error: SiftlineError,
    retries: dict[str, int] | None,
    calls: int,
) -> None:
    made = failing(STEPS["plan_batch"], error, 9)
    steps = [{"uses": "batch_processing", "retries": retries}]

    state = batch_detection(configuration(tmp_path), steps=steps, return_state=True)

    assert (state.name, len(made)) == ("Failed", calls)
    assert flow_run(state.state_details.flow_run_id).run_count == 1, "flows are not retried"
