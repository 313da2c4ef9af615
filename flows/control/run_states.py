"""Flow runs in the words of Siftline: their states, their jobs, and what the server adds to a status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter
from prefect.utilities.urls import url_for
from pydantic import ValidationError

from siftline.config.batch import BatchConfig
from siftline.errors import SiftlineError
from siftline.flows.control.slots import AWAITING, present_place
from siftline.flows.server import workers_online, working_directory
from siftline.jobs.live import LiveRecord, live_record
from siftline.jobs.record import job_directories
from siftline.jobs.status import FINAL, BatchStatus, State, job_status, live_status
from siftline.pipelines.assignment import assignment_of
from siftline.tasks.adapters.run_events import CHECKPOINT, STAGE

RECENT_RUNS = 200
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
# After its time a run is starting; later, it waits for something.
_SOON = timedelta(seconds=2)
_LATE = timedelta(seconds=15)


def state_of(run: FlowRun) -> State:
    """Return the state of a run in the words of Siftline; a running one has no job yet."""
    if run.state is None:
        return "created"
    if run.state.name == "AwaitingRetry":
        return "recovering"
    if run.state.name == AWAITING:
        return "queued"
    if run.state.is_scheduled():
        return "starting" if -_SOON <= datetime.now(UTC) - due_time_of(run) <= _LATE else "queued"
    if run.state.is_completed():
        return next((_LABELS[tag] for tag in run.tags if tag in _LABELS), "completed")
    return _STATES[run.state.type]


def due_time_of(run: FlowRun) -> datetime:
    """Return the time at which a run should start."""
    return run.expected_start_time or run.created or datetime.now(UTC)


def present_run(runs: list[FlowRun]) -> FlowRun | None:
    """Return the run at work, else one that is due, else the last one that has started."""
    soon = datetime.now(UTC) + _SOON
    active = [run for run in runs if run.state and not run.state.is_final() and not run.state.is_scheduled()]
    due = [run for run in runs if run.state and run.state.is_scheduled() and due_time_of(run) <= soon]
    return next(iter([*active, *due, *(run for run in runs if run.start_time is not None)]), None)


def recovery_of(client: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    """Return the last recovery of a run, if there is one among the recent ones."""
    # Not by its name, which it gets when it starts.
    chosen = FlowFilter.model_validate({"name": {"any_": ["recovery"]}})
    latest = FlowRunSort.EXPECTED_START_TIME_DESC
    found = client.read_flow_runs(flow_filter=chosen, limit=RECENT_RUNS, sort=latest)
    return next((one for one in found if one.parameters.get("flow_run_id") == str(run.id)), None)


def status_of_run(client: SyncPrefectClient, run: FlowRun, checkpoint: Path | str) -> BatchStatus:
    """Return the status of a run from its job, or from its events where that is out of reach."""
    deployment = client.read_deployment(run.deployment_id) if run.deployment_id else None
    job = job_of_run(str(run.id), [checkpoint, *_own_checkpoint(run, deployment)])
    status = job_status(job) if job is not None else _by_events(client, run)
    if status.flow_run_id != str(run.id):
        # Another run went on with the job; this one has what the server says.
        of_other = {"error": None, "message": None, "since": None, "started": None, "ended": None}
        update = {**of_other, "state": state_of(run), "flow_run_id": str(run.id)}
        status = status.model_copy(update=update)
    return with_server(client, status, run, deployment, of_run=True)


def _own_checkpoint(run: FlowRun, deployment: DeploymentResponse | None) -> list[Path]:
    """Return the checkpoint of a run's configuration, as its worker sees it."""
    config = _config_of(run)
    root = working_directory(deployment) if deployment is not None else Path.cwd()
    return [root / config.checkpoint.path] if config is not None else []


def _config_of(run: FlowRun) -> BatchConfig | None:
    """Return the configuration of a run; a recovery has none of its own."""
    try:
        return assignment_of(run.parameters).config
    except SiftlineError:
        return None


def _name_of(run: FlowRun) -> str:
    """Return the name of a run's batch; the run itself has it only once it has started."""
    config = _config_of(run)
    return config.name if config is not None else run.name.partition(" ")[0]


def job_of_run(flow_run_id: str, checkpoints: list[Path | str]) -> Path | None:
    """Find the job on which a run works or has worked."""
    for checkpoint in checkpoints:
        for job in reversed(job_directories(checkpoint)):
            live = live_record(job).read_or(None)
            if live is not None and live.run == flow_run_id:
                return job
    return None


def _by_events(client: SyncPrefectClient, run: FlowRun) -> BatchStatus:
    """Return the status of a run whose checkpoint is out of reach, from its last event."""
    chosen = {"resource": {"id": [f"prefect.flow-run.{run.id}"]}, "event": {"name": [STAGE, CHECKPOINT]}}
    page = client.read_events(EventFilter.model_validate(chosen), limit=1)
    state = state_of(run)
    try:
        payload = page.events[0].payload
        live = LiveRecord.model_validate(payload["record"])
    except (IndexError, ValidationError):  # no event yet, or one of another version
        return BatchStatus(name=_name_of(run), flow_run_id=str(run.id), state=state, final=False)
    return live_status(live, "running" if state == "starting" else state, payload["job_id"])


def with_server(
    client: SyncPrefectClient,
    status: BatchStatus,
    run: FlowRun,
    deployment: DeploymentResponse | None = None,
    of_run: bool = False,
) -> BatchStatus:
    """Add to a status what the server knows of its run."""
    state = status.state
    # Nobody notes in the checkpoint that a run was cancelled in the queue.
    of_run |= state == "queued"
    if of_run and run.state is not None and (run.state.is_final() or run.state.is_paused()):
        state = state_of(run)
    message = (run.state.message if run.state else None) or status.message
    place = present_place(client, run)
    if place is not None and place.waits and state in ("starting", "queued"):
        state = "queued"
    elif state in ("starting", "queued") and deployment is not None:
        pool = deployment.work_pool_name
        if run.state is not None and run.state.is_scheduled():
            waits = f"waiting for a worker of work pool {pool}"
            message = waits if workers_online(client, pool) else f"work pool {pool} has no worker"
    if state == "interrupted":
        message = status.message or message
    waited = (run.start_time - due_time_of(run)).total_seconds() if run.start_time else None
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
            "queue_place": place.place if place is not None else status.queue_place,
            "wait_seconds": place.seconds if place is not None else status.wait_seconds,
            "queue_seconds": status.queue_seconds or (None if waited is None else max(0.0, waited)),
            "links": status.links.model_copy(update={"run": url_for("flow-run", obj_id=run.id)}),
        }
    )
