"""Pipelines of small data, and what a server says of their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.processes import Shell
from tests.flows.batches import FEATURES
from tests.flows.commands import call_siftline

BATCH = {
    "source": {"path": "data/ticks.parquet", "key": ["id"], "features": FEATURES},
    "detector": {"params": {"n_estimators": 10}},
    "chunking": {"rows": 100},
    "cluster": {"kind": "serial"},
}
# The page of a deployment asks for runs by the names of their states, as chosen there.
ON_THE_PAGE = [
    *(
        "Late",
        "Resuming",
        "AwaitingRetry",
        "AwaitingConcurrencySlot",
        "Pending",
        "Paused",
        "Suspended",
        "Running",
    ),
    *("Retrying", "Completed", "Cached", "Cancelled", "Cancelling", "Crashed", "Failed", "TimedOut"),
]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED")
DAILY = {
    **BATCH,
    "source": {**BATCH["source"], "path": "data/{{ date }}.parquet"},
    "output": {"path": "results/{{ date }}"},
}


class Server:
    """Questions of the tests to the server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **body: Any) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self._url}{path}", json=body, timeout=120).raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def deployment(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self._url}/deployments/name/batch-detection/{name}", timeout=120)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def runs(self, name: str, *states: str) -> list[dict[str, Any]]:
        """The runs of a deployment in some states; its page in Prefect's UI lists all that have ended."""
        chosen = {"deployments": {"name": {"any_": [name]}}}
        runs = self.ask("/flow_runs/filter", **chosen)
        listed = self.ask("/flow_runs/filter", **chosen, flow_runs={"state": {"name": {"any_": ON_THE_PAGE}}})
        ended = {run["id"] for run in runs if run["state_type"] in ENDED}
        hidden = ended - {run["id"] for run in listed}
        assert not hidden, f"the deployment's page hides {hidden}"
        return [run for run in runs if not states or run["state_name"] in states]


def write_pipeline(project: Shell, name: str, pool: str = "pipelines", **fields: Any) -> Path:
    path = project.directory / f"{name}.yaml"
    batch = {**BATCH, "output": {"path": f"results/{name}"}}
    values = {"name": name, "work_pool": pool, "batch": batch, **fields}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def apply(project: Shell, *arguments: str | Path) -> str:
    finished = call_siftline(project, "pipelines", "apply", *arguments)
    assert finished.status == 0, finished.err
    return finished.out
