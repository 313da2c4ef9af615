"""The services of a stack: the command of each, its environment, and its health check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from siftline.engine import ENVIRONMENT, SCHEDULING
from siftline.stack import postgresql
from siftline.stack.config import WORK_POOL, Stack
from siftline.stack.token import TOKEN_VARIABLE, page_token
from siftline.system.prefect_api import NO_TELEMETRY

_TIMEOUT_SECONDS = 5.0
_WORKER = "stack"
# -P: code is not imported from the working directory, where anybody may put it.
_PYTHON = (sys.executable, "-P", "-m")
_QUIET = {**NO_TELEMETRY, "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Service:
    """One of the processes; `environment` is added to ours, and `arguments` are of `subprocess.Popen`.

    Commands are without secrets, because every user of the machine can see them.
    """

    name: str
    address: str
    command: tuple[str, ...]
    healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def services(stack: Stack, since: datetime) -> list[Service]:
    """List the services of a stack that was started at `since`, in the order of their start.

    PostgreSQL must have been prepared.
    """
    database = [_postgresql(stack)] if stack.database == "postgresql" else []
    others = [_server(stack), _scheduler(stack), _dask_workers(stack), _prefect_worker(stack, since)]
    return [*database, *others, _monitor(stack)]


def _postgresql(stack: Stack) -> Service:
    program, port = postgresql.program(stack, "postgres"), ("-p", str(stack.database_port))
    here = ("-c", f"listen_addresses={postgresql.HOST}", "-c", "unix_socket_directories=")
    ask = [postgresql.program(stack, "pg_isready"), "-q", "-h", postgresql.HOST, *port]
    return Service(
        "postgresql",
        f"{postgresql.HOST}:{stack.database_port}",
        (program, "-D", str(postgresql.data(stack)), *port, *here),
        lambda: subprocess.run(ask, check=False).returncode == 0,
        arguments={"cwd": postgresql.directory(stack), **postgresql.identity()},
    )


def _server(stack: Stack) -> Service:
    sqlite = f"sqlite+aiosqlite:///{stack.sqlite}"
    environment = {
        "PREFECT_API_URL": stack.api,
        "PREFECT_API_DATABASE_CONNECTION_URL": sqlite
        if stack.database == "sqlite"
        else postgresql.url(stack),
        # Slots of a pool outlive a restart of the server.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # The second UI calls Amplitude, whatever else is set.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
    }
    return Service(
        "prefect-server",
        stack.ui,
        (*_PYTHON, "prefect", "server", "start", "--host", stack.host, "--port", str(stack.server_port)),
        lambda: _ask(f"{stack.api}/health") is True,
        {**_QUIET, **environment},
        # Its Alembic puts the working directory first on its import path; its files may hold secrets.
        {"cwd": stack.home, "umask": 0o077},
    )


def _scheduler(stack: Stack) -> Service:
    return Service(
        "dask-scheduler",
        stack.scheduler,
        (
            *(*_PYTHON, "dask", "scheduler", "--host", stack.host, "--port", str(stack.scheduler_port)),
            *("--dashboard-address", stack.dashboard.removeprefix("http://")),
        ),
        lambda: _dask_count(stack) is not None,
        {**_QUIET, **_dask_environment(SCHEDULING)},
    )


def _dask_workers(stack: Stack) -> Service:
    return Service(
        "dask-workers",
        f"{stack.workers} at the scheduler",
        (
            *(*_PYTHON, "dask", "worker", stack.scheduler, "--host", stack.host, "--nanny", "--no-dashboard"),
            *("--nworkers", str(stack.workers), "--nthreads", str(stack.worker_threads)),
            *("--memory-limit", stack.worker_memory, "--local-directory", str(stack.home / "scratch")),
            # Even without a dashboard they have web pages, and those would listen everywhere.
            *("--dashboard-address", f"{stack.dashboard.removeprefix('http://').rpartition(':')[0]}:0"),
        ),
        lambda: (_dask_count(stack) or 0) >= stack.workers,
        {**_QUIET, **ENVIRONMENT},
    )


def _dask_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings of Dask as environment variables."""
    return {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": json.dumps(value)
        for name, value in settings.items()
    }


def _dask_count(stack: Stack) -> int | None:
    """Return the number of the scheduler's workers; None if it does not answer."""
    counts = _ask(f"{stack.dashboard}/json/counts.json")
    return counts["workers"] if isinstance(counts, dict) else None


def _prefect_worker(stack: Stack, since: datetime) -> Service:
    # With a type the worker creates a missing work pool.
    options = ("--name", _WORKER, "--pool", WORK_POOL, "--type", "process")
    return Service(
        "prefect-worker",
        f"work pool {WORK_POOL}",
        (*_PYTHON, "prefect", "worker", "start", *options),
        lambda: _polls(stack, since),
        {**_QUIET, "PREFECT_API_URL": stack.api},
    )


def _monitor(stack: Stack) -> Service:
    """Return the page of the jobs in the working directory's checkpoint."""
    token = page_token(stack)
    return Service(
        "monitor",
        stack.monitor,
        (*_PYTHON, "siftline", "serve", "--host", stack.host, "--port", str(stack.monitor_port)),
        lambda: _ask(f"{stack.monitor}/healthz") is not None,
        {**_QUIET, **({TOKEN_VARIABLE: token} if token is not None else {})},
    )


def _polls(stack: Stack, since: datetime) -> bool:
    """Return true if our worker is online since this start; Prefect may still show an earlier one."""
    workers = _ask(f"{stack.api}/work_pools/{WORK_POOL}/workers/filter", {"limit": 200})
    return any(
        worker["name"] == _WORKER
        and worker["status"] == "ONLINE"
        and datetime.fromisoformat(worker["last_heartbeat_time"]) >= since
        for worker in workers or ()
    )


def _ask(address: str, body: Mapping[str, object] | None = None) -> Any:
    """Return the answer of an HTTP server; None without one."""
    name, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    options: dict[str, Any] = {"json": body, "auth": (name, password) if name else None}
    try:
        # Not through a proxy: it is this machine.
        answer = httpx.request(
            "POST" if body else "GET", address, timeout=_TIMEOUT_SECONDS, trust_env=False, **options
        )
        return answer.json() if answer.is_success else None
    except (httpx.TransportError, ValueError):
        return None
