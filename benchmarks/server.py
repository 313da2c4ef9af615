"""A Prefect server to measure against, and what it knows of a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
_UP_WITHIN_SECONDS = 120.0
_TOLD_WITHIN_SECONDS = 60.0
STEPS = (
    "plan_batch",
    "fit_detector",
    "detect_chunks",
    "combine_results",
    "validate_results",
    "publish_results",
)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Run a server on a free port of the loopback, with a home of its own; gives the API's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True)
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(api, process)
            yield api
        finally:
            process.terminate()
            process.wait()


def _wait_for(api: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _UP_WITHIN_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the Prefect server did not come up")


def step_seconds(api: str, flow_run: str) -> dict[str, float]:
    """How long each step of a run took, by its Prefect task run."""
    return {step: run["total_run_time"] for step, run in _steps(api, flow_run).items()}


def step_times(api: str, flow_run: str) -> dict[str, tuple[float, float]]:
    """When each step of a run began and ended, in seconds since the epoch."""
    return {
        step: (_seconds(run["start_time"]), _seconds(run["end_time"]))
        for step, run in _steps(api, flow_run).items()
    }


def flow_start(api: str, flow_run: str) -> float:
    """When a flow run began, in seconds since the epoch."""
    return _seconds(_ask(f"{api}/flow_runs/{flow_run}")["start_time"])


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _steps(api: str, flow_run: str) -> dict[str, dict[str, Any]]:
    """The task runs of a run, by step; asked for until the server, which hears of them late, knows of all."""
    give_up = time.monotonic() + _TOLD_WITHIN_SECONDS
    while True:
        runs = _ask(f"{api}/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        found = {
            step: run
            for run in runs
            for step in STEPS
            if run["name"].startswith(step) and run["state_type"] == "COMPLETED"
        }
        if len(found) == len(STEPS):
            return {step: found[step] for step in STEPS}
        if time.monotonic() > give_up:
            raise RuntimeError(f"the Prefect server knows only of {', '.join(found) or 'no step'}")
        time.sleep(0.5)


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
