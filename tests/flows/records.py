"""What the Prefect server knows of a run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun
from prefect.client.schemas.sorting import ArtifactSort, TaskRunSort

from siftline.flows.control.pools import pool_changes
from siftline.resources.pool_file import Pools, sizes
from tests.faults import wait_until

STEPS = [
    "plan_batch",
    "fit_detector",
    "detect_chunks",
    "combine_results",
    "validate_results",
    "publish_results",
    "notify",
]


def remove_pools(client: SyncPrefectClient) -> None:
    """Leave a server without pools, as it is for the other tests on it."""
    for change in pool_changes(client, sizes(Pools(workers=1))):
        change.make()
    client.delete_variable_by_name("siftline_slot_memory")
    client.delete_global_concurrency_limit_by_name("siftline")


def flow_run(run_id: UUID | str | None) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(run_id)))


def label(run: State[Any] | UUID | str | None) -> str | None:
    """The label of a run, a tag; None where the state's name says everything."""
    found = flow_run(run.state_details.flow_run_id if isinstance(run, State) else run).tags
    return next((tag.removeprefix("siftline:") for tag in found if tag.startswith("siftline:")), None)


def task_runs(run_id: UUID | str | None, last: str = "notify") -> dict[str, TaskRun]:
    """The task runs of a flow run by name, once the last of them has reached the server."""

    def read() -> list[TaskRun]:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(run_id))]))
        with get_client(sync_client=True) as client:
            return client.read_task_runs(flow_run_filter=chosen, sort=TaskRunSort.NAME_ASC, limit=200)

    def complete() -> list[TaskRun] | None:
        runs = read()
        final = all(run.state is not None and run.state.is_final() for run in runs)
        return runs if final and any(run.name == last for run in runs) else None

    runs = wait_until(complete, "the task runs have reached the server")
    found = {run.name: run for run in runs}
    assert len(found) == len(runs), f"a task ran twice: {sorted(run.name for run in runs)}"
    return found


def artifacts(run_id: UUID | str | None) -> dict[str, Artifact]:
    """The artifacts of a flow run, by key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(run_id))])),
            sort=ArtifactSort.ID_DESC,
            limit=200,
        )
    # Prefect's own, of a persisted result, have no key.
    return {artifact.key: artifact for artifact in found if artifact.key is not None}


ALL_FINISHED = "Finished in state"
"""Said by each of the seven task runs, and last by the flow run."""


def log(run_id: UUID | str | None, until: str = ALL_FINISHED) -> str:
    """The log of a flow run, once it contains a text; the whole log without one."""
    times = 8 if until == ALL_FINISHED else 1

    def read() -> str | None:
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(str(run_id))]))
        with get_client(sync_client=True) as client:
            text = "\n".join(line.message for line in client.read_logs(chosen, limit=200, offset=0))
        return text if text.count(until) >= times else None

    return wait_until(read, f"the log says {until!r}")
