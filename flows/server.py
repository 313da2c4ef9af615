"""The Prefect API: reached, its pipelines looked up, its errors mapped to Siftline's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from siftline.errors import ApiError, Cancelled, ConfigError, UnknownPipeline

# Marks the deployments that Siftline has created.
TAG = "siftline"


def reach_api() -> None:
    """Check that the API at ``PREFECT_API_URL`` answers; without one, start an embedded server."""
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise ApiError("the embedded Prefect server does not start", _REMEDY) from error
    with client:
        _check_health(client)


def api_address() -> str | None:
    """Return ``PREFECT_API_URL``; None without one, so that a server is started for each command."""
    address: str | None = PREFECT_API_URL.value()
    return address


@contextmanager
def server(seconds: float | None = None) -> Iterator[SyncPrefectClient]:
    """Connect to the server at ``PREFECT_API_URL`` and map its errors to ApiError and ConfigError.

    With `seconds`, each answer is awaited only that long.
    """
    if not PREFECT_API_URL.value():
        remedy = (
            "start one with `siftline up` or `prefect server start`, and set PREFECT_API_URL to its address"
        )
        raise ApiError("no Prefect server is configured", remedy)
    http = {"timeout": seconds} if seconds is not None else None
    with get_client(httpx_settings=http, sync_client=True) as client:
        _check_health(client)
        try:
            _check_version(client)
            yield client
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:
                problem = f"the Prefect API failed (status {error.response.status_code})"
                raise ApiError(problem, "check the server's log") from error
            answer = " ".join(error.response.text.split())
            raise ConfigError(f"the Prefect server refuses it: {answer}", "correct it") from error
        except httpx.HTTPError as error:
            problem = f"the Prefect API does not answer ({type(error).__name__})"
            raise ApiError(problem, "check the server, then try again") from error


_REMEDY = "start it with `prefect server start`, correct PREFECT_API_URL, or unset it"


def _check_health(client: SyncPrefectClient) -> None:
    error = client.api_healthcheck()
    if error is not None:
        problem = f"the Prefect API at {client.api_url} does not answer ({type(error).__name__})"
        raise ApiError(problem, _REMEDY)


def _check_version(client: SyncPrefectClient) -> None:
    theirs, ours = client.api_version(), prefect.__version__
    if _minor(theirs) < _minor(ours):
        problem = (
            f"the Prefect server at {client.api_url} is version {theirs}, older than this Prefect, {ours}"
        )
        raise ApiError(problem, "upgrade the server: Prefect supports clients of its own version or older")


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@contextmanager
def flow_errors() -> Iterator[None]:
    """Map the errors of a flow called in this process to Cancelled and ApiError."""
    try:
        yield
    except CancelledRun as error:
        remedy = "run the same command again to go on: finished chunks are kept"
        raise Cancelled("interrupted", remedy) from error
    except httpx.HTTPError as error:
        remedy = "see `siftline jobs` for the progress, and run the same command again"
        raise ApiError(f"the Prefect API was lost ({type(error).__name__})", remedy) from error


def deployment_name(pipeline: str) -> str:
    """Return the full name of a pipeline's deployment."""
    return f"batch-detection/{pipeline}"


def find_deployment(client: SyncPrefectClient, pipeline: str) -> DeploymentResponse | None:
    """Return the deployment with a pipeline's name, Siftline's or not; None without one."""
    try:
        return client.read_deployment_by_name(deployment_name(pipeline))
    except (ObjectNotFound, ValueError, httpx.InvalidURL):  # it is asked for names of deployments only
        return None


def deployment_of(client: SyncPrefectClient, pipeline: str) -> DeploymentResponse:
    """Return the deployment that Siftline created for a pipeline, or raise UnknownPipeline."""
    found = find_deployment(client, pipeline)
    if found is None or TAG not in found.tags:
        remedy = "see `siftline pipelines list`, or create it with `siftline pipelines apply`"
        raise UnknownPipeline(f"pipeline {pipeline}: the server does not have it", remedy)
    return found


def workers_online(client: SyncPrefectClient, work_pool: str | None) -> int:
    """Return the number of workers that poll a work pool."""
    try:
        found = client.read_workers_for_work_pool(work_pool) if work_pool else []
    except ObjectNotFound:
        return 0
    return sum(worker.status == WorkerStatus.ONLINE for worker in found)


def working_directory(deployment: DeploymentResponse) -> Path:
    """Return the directory in which a deployment's runs work."""
    for step in deployment.pull_steps or []:
        for settings in step.values():
            if isinstance(settings, dict) and "directory" in settings:
                return Path(settings["directory"])
    return Path.cwd()


def find_run(client: SyncPrefectClient, flow_run_id: UUID | str) -> FlowRun:
    """Return a flow run, or raise UnknownPipeline."""
    try:
        return client.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        problem = f"run {flow_run_id}: the server does not have it"
        raise UnknownPipeline(problem, "see the runs with `siftline pipelines list`") from None
