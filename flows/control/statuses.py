"""The status of a job, a run or a pipeline, from the checkpoint and from the Prefect server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from siftline.errors import ApiError, UnknownJob, UnknownPipeline
from siftline.flows.control.run_states import (
    RECENT_RUNS,
    job_of_run,
    present_run,
    recovery_of,
    status_of_run,
    with_server,
)
from siftline.flows.server import deployment_of, find_run, server, workers_online
from siftline.jobs.live import live_record
from siftline.jobs.plans import read_plan
from siftline.jobs.record import find_job, job_directories
from siftline.jobs.starting import find_starting
from siftline.jobs.status import BatchStatus, job_status
from siftline.storage.lease import last_holder

_PATIENCE_SECONDS = 5.0
_WITH_JOB = ("completed", "rejected", "partial")


def batch_status(target: str | UUID, checkpoint: Path | str = ".siftline") -> BatchStatus:
    """Return the status of a job, a run or a pipeline.

    Parameters
    ----------
    target : str or UUID
        Unique prefix of a job's id, id of a flow run, or name of a pipeline: its present or last run.
    checkpoint : path
        Directory of the jobs. Those of a run's own configuration are found as well.

    Raises
    ------
    UnknownJob, UnknownPipeline
        When neither the checkpoint nor the server has it.
    ApiError
        When only the server can have it, and it does not answer.
    """
    if _is_id(target):
        return run_status(target, checkpoint)
    target = str(target)
    if (begun := _starting(target, checkpoint)) is not None:
        return begun
    try:
        return _with_run(job_status(find_job(checkpoint, target)))
    except UnknownJob as error:
        unknown = error
    jobs = [job for job in job_directories(checkpoint) if _name(job) == target]
    try:
        if PREFECT_API_URL.value():
            return _pipeline_status(target, checkpoint, jobs)
    except UnknownPipeline:
        pass
    except ApiError:
        if not jobs:
            raise
    if not jobs:
        raise unknown.about(f"{target}: no job, run or pipeline of that name")
    return job_status(jobs[-1])


def run_status(flow_run_id: UUID | str, checkpoint: Path | str = ".siftline") -> BatchStatus:
    """Return the status of a run, without a server from the checkpoint.

    Raises
    ------
    UnknownPipeline, ApiError
        When the server does not have it, or is needed and does not answer.
    """
    try:
        with server(_PATIENCE_SECONDS) as client:
            return status_of_run(client, find_run(client, flow_run_id), checkpoint)
    except ApiError:
        job = job_of_run(str(flow_run_id), [checkpoint])
        if job is None:
            raise
        return job_status(job)


def _is_id(target: str | UUID) -> bool:
    try:
        UUID(str(target))
    except ValueError:
        return False
    return len(str(target)) == 36


def _starting(name: str, checkpoint: Path | str) -> BatchStatus | None:
    """Return the status of a run that this machine starts, until it works on a job."""
    begun = find_starting(checkpoint, name)
    if begun is None:
        return None
    for job in job_directories(checkpoint):
        holder, lease = last_holder(job)
        if lease == "held" and holder is not None and holder.pid == begun.pid:
            return _with_run(job_status(job))
    message = f"process {begun.pid} has begun, and has no job yet"
    return BatchStatus(name=name, state="starting", final=False, since=begun.at, message=message)


def _name(job: Path) -> str | None:
    live = live_record(job).read_or(None)
    if live is not None:
        return live.name
    try:
        return read_plan(job).config.name
    except UnknownJob:
        return None


def _with_run(status: BatchStatus) -> BatchStatus:
    """Add the server's side to the status of a job, if there is a server that answers."""
    if not PREFECT_API_URL.value() or status.flow_run_id is None or not _is_id(status.flow_run_id):
        return status
    try:
        with server(_PATIENCE_SECONDS) as client:
            run = client.read_flow_run(UUID(status.flow_run_id))
            status = with_server(client, status, run)
            recovery = recovery_of(client, run) if status.state in ("failed", "interrupted") else None
            if recovery is not None and recovery.state is not None and not recovery.state.is_final():
                message = f"recovery {recovery.id} is {recovery.state_name}"
                update = {"state": "recovering", "final": False, "message": message}
                status = status.model_copy(update=update)
    except (ApiError, ObjectNotFound):
        return status  # the checkpoint says enough
    return status


def _pipeline_status(name: str, checkpoint: Path | str, jobs: list[Path]) -> BatchStatus:
    """Return the status of a pipeline's present run, or of the last or next one."""
    with server(_PATIENCE_SECONDS) as client:
        pool = None
        try:
            deployment = deployment_of(client, name)
        except UnknownPipeline:
            runs = _runs(client, {"name": {"like_": f"{name} "}}, None)
            runs = [run for run in runs if run.name.startswith(f"{name} ")]
            if not runs and not jobs:
                raise
        else:
            runs, pool = _runs(client, None, deployment), deployment.work_pool_name
        run = present_run(runs)
        if run is not None:
            status = _recovered_status(client, run, checkpoint)
            # A completed run of an earlier version has no record of its own, and events come late.
            known = status.job_id is not None or not jobs or status.state not in _WITH_JOB
            return status if known else job_status(jobs[-1])
        idle = f", and work pool {pool} has no worker" if pool and not workers_online(client, pool) else ""
    if jobs:
        return job_status(jobs[-1])
    due = min((run.expected_start_time for run in runs if run.expected_start_time), default=None)
    message = ("its first run is scheduled" if due else "no run was started yet") + idle
    return BatchStatus(name=name, pipeline=name, state="created", final=False, message=message, due=due)


def _recovered_status(client: SyncPrefectClient, run: FlowRun, checkpoint: Path | str) -> BatchStatus:
    """Return the status of a run, or of the run that went on with its job after it had failed."""
    last = run
    while (recovery := recovery_of(client, last)) is not None:
        last = recovery
    status = status_of_run(client, last, checkpoint)
    if last is not run and not status.final:
        return status.model_copy(update={"state": "recovering"})
    if status.state in ("failed", "interrupted", "cancelled") and status.job_id is not None:
        with suppress(UnknownJob):  # out of reach
            return _with_run(job_status(find_job(checkpoint, status.job_id)))
    return status


def _runs(
    client: SyncPrefectClient, chosen: dict[str, Any] | None, deployment: DeploymentResponse | None
) -> list[FlowRun]:
    """Return recent runs, those due last first."""
    of = {"id": {"any_": [deployment.id]}} if deployment is not None else None
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(chosen) if chosen else None,
        deployment_filter=DeploymentFilter.model_validate(of) if of else None,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=RECENT_RUNS,
    )
