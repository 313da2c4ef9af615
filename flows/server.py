"""The Prefect API: reached, its pipelines looked up, its errors mapped to Siftline's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.worker import EventsWorker
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME
from prefect.utilities.urls import url_for

from siftline.errors import ApiError, Cancelled, ConfigError, UnknownPipeline
from siftline.flows.address import api_address
from siftline.system.addresses import ask_loopback_directly, without_password
from siftline.system.imports import children_import_safely
from siftline.system.prefect_api import SILENT_SECONDS, check_api

# Marks the deployments that Siftline has created.
TAG = "siftline"


def reach_api() -> None:
    """Check that the API at ``PREFECT_API_URL`` answers; without one, start an embedded server."""
    url = api_address()
    ask_loopback_directly(url)
    if url is None:
        _start_server()
        return
    with _connected(url, exact=1):
        pass


def _start_server() -> None:
    from siftline.flows.embedded import start_embedded_server
    from siftline.flows.new_database import make_database

    make_database()
    try:
        with children_import_safely(), _away():
            start_embedded_server()
    except RuntimeError as error:
        remedy = "set PREFECT_API_URL to that of a server; start one with `prefect server start`"
        raise ApiError("the embedded Prefect server does not start", remedy) from error


def _away() -> AbstractContextManager[object]:
    """Leave the working directory while a server starts: its Alembic would import from there."""
    home, database = PREFECT_HOME.value(), PREFECT_API_DATABASE_CONNECTION_URL.value()
    return chdir(home) if home.is_absolute() and str(home) in str(database) else nullcontext()


@contextmanager
def server(seconds: float | None = None) -> Iterator[SyncPrefectClient]:
    """Connect to the server at ``PREFECT_API_URL`` and map its errors to ApiError and ConfigError.

    With `seconds`, each answer is awaited only that long.
    """
    url = api_address()
    if url is None:
        remedy = (
            "start one with `siftline up` or `prefect server start`, and set PREFECT_API_URL to its address"
        )
        raise ApiError("no Prefect server is configured", remedy)
    ask_loopback_directly(url)
    with _connected(url, exact=2, seconds=seconds) as client:
        yield client


@contextmanager
def _connected(url: str, exact: int, seconds: float | None = None) -> Iterator[SyncPrefectClient]:
    """Connect to a server of a suitable version; map its errors."""
    check_api(url, seconds or SILENT_SECONDS)
    http = {"timeout": seconds} if seconds is not None else None
    with get_client(httpx_settings=http, sync_client=True) as client, _errors_mapped(client):
        _check_version(client, exact)
        yield client


@contextmanager
def _errors_mapped(client: SyncPrefectClient) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        status, url = error.response.status_code, without_password(client.api_url)
        if status in (401, 403):
            remedy = "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to them"
            raise ApiError(f"the Prefect API at {url} wants credentials (status {status})", remedy) from error
        if not error.response.is_client_error:
            raise ApiError(f"the Prefect API failed (status {status})", "check the server's log") from error
        answer = " ".join(error.response.text.split())
        raise ConfigError(f"the Prefect server refuses it: {answer}", "correct it") from error
    except httpx.HTTPError as error:
        problem = f"the Prefect API does not answer ({type(error).__name__})"
        raise ApiError(problem, "check the server, then try again") from error


def _check_version(client: SyncPrefectClient, exact: int) -> None:
    """Check a server's version: our major one, its first `exact` numbers not below ours."""
    theirs, ours = str(client.api_version()), prefect.__version__
    url = without_password(client.api_url)
    their, our = _numbers(theirs), _numbers(ours)
    if len(their) < 2:
        raise ApiError(f"the server at {url} has no version of Prefect", "correct PREFECT_API_URL")
    if their[:1] == our[:1] and their[:exact] >= our[:exact]:
        return
    older = their < our
    problem = (
        f"the Prefect server at {url} is version {theirs}, "
        f"{'older' if older else 'newer'} than this Prefect, {ours}"
    )
    remedy = "upgrade the server: Prefect supports clients of its own version or older"
    raise ApiError(problem, remedy if older else "install the server's version of Prefect here")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; none if it is not one."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


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


def news_sent(seconds: float) -> bool:
    """Send pending events and log lines of this process; return False if time runs out."""
    sending: set[Future[bool]] = set()
    for service in (EventsWorker, APILogWorker):
        _, late = cast(Any, service.drain_all(timeout=0))
        sending |= late
    return not wait(sending, seconds).not_done


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


def page_of_run(flow_run_id: UUID | str) -> str | None:
    """Return the address of a run's page; None with an embedded server."""
    return url_for("flow-run", obj_id=UUID(str(flow_run_id))) if api_address() else None


def find_run(client: SyncPrefectClient, flow_run_id: UUID | str) -> FlowRun:
    """Return a flow run, or raise UnknownPipeline."""
    try:
        return client.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        problem = f"run {flow_run_id}: the server does not have it"
        raise UnknownPipeline(problem, "see the runs with `siftline pipelines list`") from None
