"""Jobs and pipelines on a Prefect server, as plain functions with typed results.

Each talks to the server at ``PREFECT_API_URL``; workers of the work pool do the work. All raise ApiError
without a server that answers, and UnknownPipeline for a pipeline or run that it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling
from prefect.utilities.urls import url_for
from pydantic import AwareDatetime

from siftline.config.batch import BatchConfig
from siftline.config.loading import resolve_config
from siftline.config.schedules import Interval
from siftline.errors import ConfigError, renamed
from siftline.flows.control.deployments import changes_for, check_on_server, removal_of
from siftline.flows.control.slots import TAG as CLAIM_TAG
from siftline.flows.control.slots import Claim, claim_for, present_place
from siftline.flows.control.statuses import run_status
from siftline.flows.server import TAG, deployment_of, find_run, server, workers_online
from siftline.jobs.status import BatchStatus, State
from siftline.pipelines.spec import Pipeline, check_pipeline, load_pipeline
from siftline.stages.plan import identify_job
from siftline.storage.records import Record

ON_DEMAND = "on-demand"


class BatchJob(Record):
    """A submitted job, and the run that does it.

    Attributes
    ----------
    state : str
        ``starting``, or ``queued`` while it waits for a worker or for slots of a pool.
    place, wait_seconds : int, float or None
        Place in the queue of the pool, from 1, and the estimated seconds until its turn, if known.
    """

    job_id: str
    flow_run_id: UUID
    state: State
    place: int | None = None
    wait_seconds: float | None = None
    url: str | None = None


class PipelineRun(Record):
    """A started run of a pipeline."""

    pipeline: str
    flow_run_id: UUID
    url: str | None


class PipelineStatus(Record):
    """A pipeline on the server: its schedules (true: active), its workers and its last run."""

    name: str
    paused: bool
    schedules: dict[str, bool]
    work_pool: str | None
    workers_online: int
    next_due: AwareDatetime | None
    last_run: str | None
    last_state: str | None


def create_batch_job(config: BatchConfig, work_pool: str = "siftline") -> BatchJob:
    """Submit a job to a work pool; its worker runs it in the current directory.

    Raises
    ------
    InputError
        When the job cannot be done, or never fits the pool.
    """
    resolved = resolve_config(config, datetime.now(UTC))
    job_id, rows = identify_job(resolved)
    values = config.model_dump(mode="json", exclude_unset=True)
    # Every job brings its own configuration; the deployment's is an example.
    pipeline = Pipeline(name=ON_DEMAND, description="Single jobs.", batch=values, work_pool=work_pool)
    with server() as client:
        claim = claim_for(client, work_pool, resolved, rows)
        for change in changes_for(client, pipeline):
            change.make()
        run = _start(client, ON_DEMAND, {"config": values}, claim)
        place = present_place(client, run)
        waits = (place is not None and place.waits) or not workers_online(client, work_pool)
    return BatchJob(
        job_id=job_id,
        flow_run_id=run.id,
        state="queued" if waits else "starting",
        place=place.place if place is not None and waits else None,
        wait_seconds=place.seconds if place is not None else None,
        url=url_for("flow-run", obj_id=run.id),
    )


def create_scheduled_pipeline(pipeline: Pipeline | Path | str) -> PipelineStatus:
    """Validate a pipeline, then create or update its deployment.

    Raises
    ------
    InputError
        When the pipeline has a mistake.
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
    """Start a run of a pipeline.

    Parameters
    ----------
    pipeline : str
        Its name.
    interval : Interval, optional
        Interval to process. Default: the last one that has ended.
    parameters : mapping, optional
        Values for the templates of the batch, instead of the pipeline's.
    fresh : bool
        Run even if the interval is already published.
    """
    given: dict[str, Any] = {"fresh": True} if fresh else {}
    if interval is not None:
        given["interval"] = interval.model_dump(mode="json")
    if parameters is not None:
        given["parameters"] = dict(parameters)
    with server() as client:
        run = _start(client, pipeline, given)
    return PipelineRun(pipeline=pipeline, flow_run_id=run.id, url=url_for("flow-run", obj_id=run.id))


def pipeline_status(pipeline: str) -> PipelineStatus:
    """Return the schedules, workers and last run of a pipeline."""
    with server() as client:
        return _status(client, deployment_of(client, pipeline))


def list_pipelines() -> list[PipelineStatus]:
    """Return all pipelines of the server, by name."""
    chosen = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
    with server() as client:
        found = client.read_deployments(deployment_filter=chosen)
        ours = [one for one in found if "config" in one.parameters]
        return [_status(client, one) for one in sorted(ours, key=lambda one: one.name)]


def pause_pipeline(pipeline: str) -> None:
    """Pause the schedules of a pipeline and withdraw the runs already planned."""
    with server() as client:
        client.pause_deployment(deployment_of(client, pipeline).id)


def unpause_pipeline(pipeline: str) -> None:
    """Let the schedules of a paused pipeline start runs again."""
    with server() as client:
        client.resume_deployment(deployment_of(client, pipeline).id)


def resume_pipeline(pipeline: str) -> None:
    """Do `unpause_pipeline`, under its former name."""
    renamed("resume_pipeline", "unpause_pipeline")
    unpause_pipeline(pipeline)


def remove_pipeline(pipeline: str) -> list[str]:
    """Remove a pipeline from the server and list what was removed; results and checkpoints stay."""
    with server() as client:
        changes = removal_of(client, pipeline)
        for change in changes:
            change.make()
    return [str(change) for change in changes]


def cancel_run(flow_run_id: UUID | str) -> BatchStatus:
    """Ask a run to stop; its job can be resumed.

    Raises
    ------
    ConfigError
        When it has ended already.
    """
    with server() as client:
        run = find_run(client, flow_run_id)
        if _final(run):
            problem = f"run {run.id}: has ended already ({run.state_name})"
            raise ConfigError(problem, "there is nothing to cancel")
        client.set_flow_run_state(run.id, Cancelling())
    return run_status(flow_run_id)


def _start(
    client: SyncPrefectClient, pipeline: str, parameters: dict[str, Any], claim: Claim | None = None
) -> FlowRun:
    """Start a run of a pipeline, with its claim on slots if it has one already."""
    deployment = deployment_of(client, pipeline)
    kept: dict[str, Any] = {"tags": [CLAIM_TAG], "labels": claim.labels} if claim is not None else {}
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters, **kept)


def _final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _status(client: SyncPrefectClient, deployment: DeploymentResponse) -> PipelineStatus:
    chosen = DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}})
    latest_first = FlowRunSort.EXPECTED_START_TIME_DESC
    runs = client.read_flow_runs(deployment_filter=chosen, sort=latest_first, limit=200)
    last = next((run for run in runs if run.start_time is not None), None)
    planned = [run for run in runs if run.start_time is None and run.state and run.state.is_scheduled()]
    due = [run.expected_start_time for run in planned if run.expected_start_time is not None]
    return PipelineStatus(
        name=deployment.name,
        paused=deployment.paused,
        schedules={one.slug or str(one.id): one.active for one in deployment.schedules},
        work_pool=deployment.work_pool_name,
        workers_online=workers_online(client, deployment.work_pool_name),
        next_due=min(due, default=None),
        last_run=str(last.id) if last else None,
        last_state=last.state_name if last else None,
    )
