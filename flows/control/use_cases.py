"""What people do with jobs and pipelines on a Prefect server, as plain functions.

Each asks the server of ``PREFECT_API_URL``. What runs, runs where a worker polls the work pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from prefect.utilities.urls import url_for
from pydantic import AwareDatetime

from flows.control.deployments import TAG, changes_for, check_on_server, deployment_of, removal_of
from flows.server import server
from siftline.config.batch import BatchConfig
from siftline.config.loading import resolve_config
from siftline.config.schedules import Interval
from siftline.errors import ConfigError, UnknownPipeline
from siftline.pipelines.spec import Pipeline, check_pipeline, load_pipeline
from siftline.stages.plan import identify_job
from siftline.storage.records import Record

ON_DEMAND = "on-demand"


class BatchJob(Record):
    """A job that was submitted: what is computed, and the run that does it."""

    job_id: str
    flow_run_id: UUID


class PipelineRun(Record):
    """A run of a pipeline that was started."""

    pipeline: str
    flow_run_id: UUID
    url: str | None


class StepStatus(Record):
    """A step of a run."""

    name: str
    state: str
    started: AwareDatetime | None
    ended: AwareDatetime | None


class RunStatus(Record):
    """How far a run is: its state as Prefect has it, the steps so far, and the share of chunks scored."""

    flow_run_id: UUID
    name: str
    pipeline: str | None
    state: str
    final: bool
    message: str | None
    due: AwareDatetime | None
    started: AwareDatetime | None
    ended: AwareDatetime | None
    chunks_percent: float | None
    steps: tuple[StepStatus, ...]
    url: str | None


class PipelineStatus(Record):
    """A pipeline on the server."""

    name: str
    paused: bool
    schedules: dict[str, bool]
    work_pool: str | None
    workers_online: int
    next_due: AwareDatetime | None
    last_run: str | None
    last_state: str | None


def create_batch_job(config: BatchConfig, work_pool: str = "siftline") -> BatchJob:
    """Submit a job; a worker of the work pool does it, in this directory.

    Raises
    ------
    InputError
        When the job cannot be done.
    ApiError
        When there is no server, or it does not answer.
    """
    job_id = identify_job(resolve_config(config, datetime.now(UTC)))
    values = config.model_dump(mode="json", exclude_unset=True)
    # Every job brings its own configuration; the deployment's is an example.
    pipeline = Pipeline(name=ON_DEMAND, description="Single jobs.", batch=values, work_pool=work_pool)
    with server() as client:
        for change in changes_for(client, pipeline):
            change.make()
        deployment = deployment_of(client, ON_DEMAND)
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"config": values})
    return BatchJob(job_id=job_id, flow_run_id=run.id)


def create_scheduled_pipeline(pipeline: Pipeline | Path | str) -> PipelineStatus:
    """Validate a pipeline and activate it: create its deployment, or bring that up to date.

    Raises
    ------
    InputError
        When something about it is wrong.
    ApiError
        When there is no server, or it does not answer.
    """
    pipeline = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline)
    check_pipeline(pipeline, datetime.now(UTC))
    with server() as client:
        check_on_server(client, pipeline)
        for change in changes_for(client, pipeline):
            change.make()
        return _status(client, deployment_of(client, pipeline.name))


def trigger_pipeline_run(
    pipeline: str,
    interval: Interval | None = None,
    parameters: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> PipelineRun:
    """Start a run of a pipeline, for an interval or, by default, for the last one that is over.

    Parameters
    ----------
    pipeline : str
        Its name.
    interval : Interval, optional
        What the run is about.
    parameters : mapping, optional
        Values for the templates of the batch, in place of the pipeline's.
    fresh : bool
        Do it even if it is published already.

    Raises
    ------
    UnknownPipeline
        When the server does not have it.
    ApiError
        When there is no server, or it does not answer.
    """
    given: dict[str, Any] = {"fresh": True} if fresh else {}
    if interval is not None:
        given["interval"] = interval.model_dump(mode="json")
    if parameters is not None:
        given["parameters"] = dict(parameters)
    with server() as client:
        deployment = deployment_of(client, pipeline)
        run = client.create_flow_run_from_deployment(deployment.id, parameters=given)
    return PipelineRun(pipeline=pipeline, flow_run_id=run.id, url=url_for("flow-run", obj_id=run.id))


def run_status(flow_run_id: UUID | str) -> RunStatus:
    """Return how far a run is.

    Raises
    ------
    UnknownPipeline
        When the server has no such run.
    ApiError
        When there is no server, or it does not answer.
    """
    with server() as client:
        run = _find_run(client, flow_run_id)
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        tasks = client.read_task_runs(flow_run_filter=chosen)
        deployment = client.read_deployment(run.deployment_id) if run.deployment_id else None
        progress = _progress(client, run.id)
    steps = sorted(tasks, key=lambda one: one.start_time or datetime.max.replace(tzinfo=UTC))
    return RunStatus(
        flow_run_id=run.id,
        name=run.name,
        pipeline=deployment.name if deployment else None,
        state=run.state_name or "Unknown",
        final=run.state is not None and run.state.is_final(),
        message=run.state.message if run.state else None,
        due=run.expected_start_time,
        started=run.start_time,
        ended=run.end_time,
        chunks_percent=progress,
        steps=tuple(
            StepStatus(
                name=one.name,
                state=one.state_name or "Unknown",
                started=one.start_time,
                ended=one.end_time,
            )
            for one in steps
        ),
        url=url_for("flow-run", obj_id=run.id),
    )


def pipeline_status(pipeline: str) -> PipelineStatus:
    """Return how a pipeline stands: its schedules, workers, and last run.

    Raises
    ------
    UnknownPipeline
        When the server does not have it.
    ApiError
        When there is no server, or it does not answer.
    """
    with server() as client:
        return _status(client, deployment_of(client, pipeline))


def list_pipelines() -> list[PipelineStatus]:
    """Return all pipelines of the server, by name."""
    chosen = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    with server() as client:
        found = client.read_deployments(deployment_filter=chosen)
        ours = [one for one in found if "config" in one.parameters]
        return [_status(client, one) for one in sorted(ours, key=lambda one: one.name)]


def pause_pipeline(pipeline: str) -> None:
    """Keep the schedules of a pipeline from starting runs; runs that were planned are taken back."""
    with server() as client:
        client.pause_deployment(deployment_of(client, pipeline).id)


def resume_pipeline(pipeline: str) -> None:
    """Let the schedules of a pipeline start runs again."""
    with server() as client:
        client.resume_deployment(deployment_of(client, pipeline).id)


def remove_pipeline(pipeline: str) -> list[str]:
    """Remove a pipeline from the server, and say what went; results and checkpoints stay."""
    with server() as client:
        changes = removal_of(client, pipeline)
        for change in changes:
            change.make()
    return [str(change) for change in changes]


def cancel_run(flow_run_id: UUID | str) -> RunStatus:
    """Ask a run to stop: its worker ends it in good order, and the job can be resumed.

    Raises
    ------
    ConfigError
        When it has ended already.
    UnknownPipeline
        When the server has no such run.
    """
    with server() as client:
        run = _find_run(client, flow_run_id)
        if run.state is not None and run.state.is_final():
            raise ConfigError(
                f"run {run.id}: has ended already ({run.state_name})", "there is nothing to cancel"
            )
        client.set_flow_run_state(run.id, Cancelling())
    return run_status(flow_run_id)


def workers_online(client: SyncPrefectClient, work_pool: str) -> int:
    """Return how many workers poll a work pool."""
    try:
        found = client.read_workers_for_work_pool(work_pool)
    except ObjectNotFound:
        return 0
    return sum(worker.status == WorkerStatus.ONLINE for worker in found)


def _find_run(client: SyncPrefectClient, flow_run_id: UUID | str) -> FlowRun:
    unknown = UnknownPipeline(
        f"run {flow_run_id}: the server does not have it", "see the runs with `siftline pipelines list`"
    )
    try:
        return client.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        raise unknown from None


def _progress(client: SyncPrefectClient, run: UUID) -> float | None:
    chosen = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=["siftline-progress"])
    )
    found = client.read_artifacts(artifact_filter=chosen)
    return float(found[0].data) if found and isinstance(found[0].data, (int, float)) else None


def _status(client: SyncPrefectClient, deployment: DeploymentResponse) -> PipelineStatus:
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    runs = client.read_flow_runs(
        deployment_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200
    )
    begun = [run for run in runs if run.start_time is not None]
    planned = [run for run in runs if run.start_time is None and run.state and run.state.is_scheduled()]
    due = [run.expected_start_time for run in planned if run.expected_start_time is not None]
    pool = deployment.work_pool_name
    return PipelineStatus(
        name=deployment.name,
        paused=deployment.paused,
        schedules={one.slug or str(one.id): one.active for one in deployment.schedules},
        work_pool=pool,
        workers_online=workers_online(client, pool) if pool else 0,
        next_due=min(due, default=None),
        last_run=str(begun[0].id) if begun else None,
        last_state=begun[0].state_name if begun else None,
    )
