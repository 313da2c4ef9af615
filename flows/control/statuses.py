"""The status of a job, a run or a pipeline, from the checkpoint and from the Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.utilities.urls import url_for

from siftline.errors import ApiError, SiftlineError, UnknownJob, UnknownPipeline
from siftline.flows.recovery import committed_chunks
from siftline.flows.server import (
    deployment_of,
    find_run,
    server,
    workers_online,
    working_directory,
)
from siftline.jobs.live import ChunkCounts, LiveRecord, RowCounts, live_record
from siftline.jobs.record import find_job, job_directories
from siftline.jobs.starting import find_starting
from siftline.jobs.status import FINAL, BatchStatus, State, job_status, live_status
from siftline.pipelines.assignment import assignment_of
from siftline.stages.plan import read_plan
from siftline.storage.lease import last_holder
from siftline.tasks.adapters.run_events import CHECKPOINT, STAGE

_PATIENCE_SECONDS = 5.0
_RECENT_RUNS = 200
_LABELS: dict[str, State] = {"siftline:rejects": "rejected", "siftline:partial": "partial"}
_STATES: dict[StateType, State] = {
    StateType.PENDING: "starting",
    StateType.RUNNING: "starting",
    StateType.CANCELLING: "running",
    StateType.PAUSED: "suspended",
    StateType.CANCELLED: "cancelled",
    StateType.CRASHED: "interrupted",
    StateType.FAILED: "failed",
    StateType.COMPLETED: "completed",
}


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
        return _with_run(directory_status(find_job(checkpoint, target)))
    except UnknownJob as unknown:
        names = [job for job in job_directories(checkpoint) if _name(job) == target]
        if not PREFECT_API_URL.value():
            if not names:
                raise unknown.about(f"{target}: no job, run or pipeline of that name") from None
            return directory_status(names[-1])
    return _pipeline_status(target, checkpoint, names)


def batch_statuses(checkpoint: Path | str = ".siftline", with_size: bool = False) -> list[BatchStatus]:
    """Return the status of every job in a checkpoint, in the order of planning, from the checkpoint alone."""
    return [directory_status(job, with_size) for job in job_directories(checkpoint)]


def directory_status(job: Path, with_size: bool = False) -> BatchStatus:
    """Return the status of the job in a directory; one of an earlier version has no live record."""
    status = job_status(job, with_size)
    if status.output is not None:
        return status
    try:
        plan = read_plan(job)
    except UnknownJob:  # of another version
        return status.model_copy(update={"message": "its plan is of another version of Siftline"})
    counts = ChunkCounts(total=len(plan.chunks), done=committed_chunks(plan))
    known = {"name": plan.config.name, "source": plan.config.source.path, "output": str(plan.output.root)}
    return status.model_copy(update={**known, "chunks": counts, "rows": RowCounts(total=plan.rows)})


def run_status(flow_run_id: UUID | str, checkpoint: Path | str = ".siftline") -> BatchStatus:
    """Return the status of a run; raises UnknownPipeline if the server does not have it."""
    with server(_PATIENCE_SECONDS) as client:
        return _run_status(client, find_run(client, flow_run_id), checkpoint)


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
            return _with_run(directory_status(job))
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
            status = _of_server(client, status, run)
            if status.state in ("failed", "interrupted") and (recovery := _recovery_of(client, run)):
                message = f"recovery {recovery.id} is {recovery.state_name}"
                update = {"state": "recovering", "final": False, "message": message}
                status = status.model_copy(update=update)
    except (ApiError, ObjectNotFound):
        return status  # the checkpoint says enough
    return status


def _recovery_of(client: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    """Return the unfinished recovery of a run, if one was created."""
    chosen = FlowRunFilter.model_validate({"name": {"any_": [f"recovery of {run.id}"]}})
    found = client.read_flow_runs(flow_run_filter=chosen, limit=1, sort=FlowRunSort.START_TIME_DESC)
    return next((one for one in found if one.state is not None and not one.state.is_final()), None)


def _pipeline_status(name: str, checkpoint: Path | str, jobs: list[Path]) -> BatchStatus:
    """Return the status of a pipeline's present run, or of the last or next one."""
    with server(_PATIENCE_SECONDS) as client:
        try:
            deployment = deployment_of(client, name)
        except UnknownPipeline:
            runs = _runs(client, {"name": {"like_": f"{name} "}}, None)
            runs = [run for run in runs if run.name.startswith(f"{name} ")]
            if not runs and not jobs:
                raise
        else:
            runs = _runs(client, None, deployment)
        run = _present(runs)
        if run is not None:
            return _run_status(client, run, checkpoint)
    if jobs:
        return directory_status(jobs[-1])
    due = min((run.expected_start_time for run in runs if run.expected_start_time), default=None)
    message = "its first run is scheduled" if due else "no run was started yet"
    return BatchStatus(name=name, pipeline=name, state="created", final=False, message=message, due=due)


def _runs(
    client: SyncPrefectClient, chosen: dict[str, Any] | None, deployment: DeploymentResponse | None
) -> list[FlowRun]:
    """Return recent runs, those due last first."""
    of = {"id": {"any_": [deployment.id]}} if deployment is not None else None
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(chosen) if chosen else None,
        deployment_filter=DeploymentFilter.model_validate(of) if of else None,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_RECENT_RUNS,
    )


def _present(runs: list[FlowRun]) -> FlowRun | None:
    """Return the run at work, else one that is due, else the last one that has started."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    active = [run for run in runs if run.state and not run.state.is_final() and not run.state.is_scheduled()]
    due = [run for run in runs if run.state and run.state.is_scheduled() and _due(run) <= soon]
    return next(iter([*active, *due, *(run for run in runs if run.start_time is not None)]), None)


def _due(run: FlowRun) -> datetime:
    return run.expected_start_time or run.created or datetime.now(UTC)


def _run_status(client: SyncPrefectClient, run: FlowRun, checkpoint: Path | str) -> BatchStatus:
    deployment = client.read_deployment(run.deployment_id) if run.deployment_id else None
    job = _job_of(run, [checkpoint, *_own_checkpoint(run, deployment)])
    status = job_status(job) if job is not None else _by_events(client, run)
    if job is None or status.flow_run_id != str(run.id):
        # Another run went on with the job; this one has what the server says.
        status = status.model_copy(update={"state": _state_of(run), "flow_run_id": str(run.id)})
    return _of_server(client, status, run, deployment, of_run=True)


def _own_checkpoint(run: FlowRun, deployment: DeploymentResponse | None) -> list[Path]:
    """Return the checkpoint of a run's configuration, as its worker sees it."""
    try:
        path = assignment_of(run.parameters).config.checkpoint.path
    except SiftlineError:
        return []
    root = working_directory(deployment) if deployment is not None else Path.cwd()
    return [root / path]


def _job_of(run: FlowRun, checkpoints: list[Path | str]) -> Path | None:
    """Find the job on which a run works or has worked."""
    for checkpoint in checkpoints:
        for job in reversed(job_directories(checkpoint)):
            live = live_record(job).read_or(None)
            if live is not None and live.run == str(run.id):
                return job
    return None


def _by_events(client: SyncPrefectClient, run: FlowRun) -> BatchStatus:
    """Return the status of a run whose checkpoint is out of reach, from its last event."""
    chosen = {"resource": {"id": [f"prefect.flow-run.{run.id}"]}, "event": {"name": [STAGE, CHECKPOINT]}}
    page = client.read_events(EventFilter.model_validate(chosen), limit=1)
    name = run.name.partition(" ")[0]
    if not page.events:
        return BatchStatus(name=name, flow_run_id=str(run.id), state=_state_of(run), final=False)
    payload = page.events[0].payload
    live = LiveRecord.model_validate(payload["record"])
    state = _state_of(run)
    return live_status(live, "running" if state == "starting" else state, payload["job_id"])


def _state_of(run: FlowRun) -> State:
    """Return the state of a run in the words of Siftline; a running one has no job yet."""
    if run.state is None:
        return "created"
    if run.state.name == "AwaitingRetry":
        return "recovering"
    if run.state.is_scheduled():
        late = datetime.now(UTC) - _due(run)
        return "starting" if timedelta(seconds=-2) <= late <= timedelta(seconds=15) else "queued"
    if run.state.is_completed():
        return next((_LABELS[tag] for tag in run.tags if tag in _LABELS), "completed")
    return _STATES[run.state.type]


def _of_server(
    client: SyncPrefectClient,
    status: BatchStatus,
    run: FlowRun,
    deployment: DeploymentResponse | None = None,
    of_run: bool = False,
) -> BatchStatus:
    """Add to a status what the server knows of its run."""
    state = status.state
    if of_run and run.state is not None and (run.state.is_final() or run.state.is_paused()):
        state = _state_of(run)
    message = (run.state.message if run.state else None) or status.message
    if state in ("starting", "queued") and deployment is not None:
        pool = deployment.work_pool_name
        if run.state is not None and run.state.is_scheduled():
            online = workers_online(client, pool)
            message = f"waiting for a worker of work pool {pool}" + ("" if online else ", which has none")
    if state == "interrupted":
        message = status.message or message
    waited = (run.start_time - _due(run)).total_seconds() if run.start_time else None
    return status.model_copy(
        update={
            "state": state,
            "final": state in FINAL,
            "pipeline": deployment.name if deployment is not None else status.pipeline,
            "prefect_state": run.state_name,
            "message": message,
            "since": status.since or (run.state.timestamp if run.state else None),
            "due": run.expected_start_time,
            "started": run.start_time or status.started,
            "ended": run.end_time or status.ended,
            "queue_seconds": max(0.0, waited) if waited is not None else None,
            "links": status.links.model_copy(update={"run": url_for("flow-run", obj_id=run.id)}),
        }
    )
