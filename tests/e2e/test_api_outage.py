"""The Prefect server goes away in mid-run: chunks go on, and when it is back, it learns the truth."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import PrefectServer, Shell, finish, write_config
from tests.faults import nothing_left_behind, wait_until
from tests.flows.batches import configuration, receipt_files

ROWS = 200_000
CHUNKS = 20
STEPS = {
    "plan_batch",
    "fit_detector",
    "detect_chunks",
    "combine_results",
    "validate_results",
    "publish_results",
    "notify",
}


class Impatient(Shell):
    """Where Prefect by itself would give up after two seconds."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PREFECT_CLIENT_MAX_RETRIES": "1"}


@contextmanager
def killed(server: PrefectServer) -> Iterator[None]:
    """It is not there: connections are refused."""
    server.kill()
    yield
    server.start()


@contextmanager
def stopped(server: PrefectServer) -> Iterator[None]:
    """It is there, and does not answer."""
    server.send(signal.SIGSTOP)
    yield
    server.send(signal.SIGCONT)


@pytest.fixture(scope="module")
def server(
    api_url: str, prefect_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrefectServer]:
    """A server that may go away."""
    with nothing_left_behind():
        server = PrefectServer(Impatient(tmp_path_factory.mktemp("outage")), prefect_database)
        try:
            yield server
        finally:
            server.kill()
            server.shell.kill_everybody()


def ask(server: PrefectServer, kind: str, run: str) -> list[dict[str, Any]]:
    """Records of a kind that the server has of a run."""
    chosen = {"flow_runs": {"id": {"any_": [run]}}}
    answer = httpx.post(f"{server.api_url}/{kind}/filter", json=chosen, timeout=120)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


@pytest.mark.parametrize("outage", [killed, pytest.param(stopped, marks=pytest.mark.soak)])
def test_chunks_go_on_and_states_and_artifacts_catch_up(
    server: PrefectServer,
    outage: Callable[[PrefectServer], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    shell = Impatient(tmp_path, server.api_url, server.shell.mark)
    values = configuration(
        shell.directory,
        rows=ROWS,
        chunk_rows=ROWS // CHUNKS,
        detector={"params": {"n_estimators": 100}, "sample_rows": 5000},
        threshold={"contamination": 0.0001},
        cluster={"kind": "local", "workers": 1},
    )
    process = shell.start("siftline", "run", write_config(shell.directory / "job.yaml", values), "--json")
    checkpoint, output = shell.directory / "checkpoint", shell.directory / "output"

    def committed() -> int:
        assert process.poll() is None, finish(process)
        return len(receipt_files(checkpoint))

    wait_until(lambda: committed() >= 4, "some receipts are committed", 120)
    with outage(server):
        assert committed() < CHUNKS, "the job was over before the server went away"
        wait_until(lambda: committed() == CHUNKS, "the other chunks are done without the server")
        wait_until((output / "manifest.json").exists, "the result is published without the server")

    finished = finish(process)
    assert finished.status == 0, finished.err
    result = finished.json()
    assert (result["state"], result["chunks_computed"]) == ("Completed", CHUNKS)

    (run,) = ask(server, "flow_runs", result["flow_run_id"])
    assert run["state_name"] == "Completed"

    def states() -> dict[str, str]:
        return {one["name"]: one["state_name"] for one in ask(server, "task_runs", run["id"])}

    wait_until(
        lambda: states() == dict.fromkeys(STEPS, "Completed"), "the states of the tasks have caught up"
    )
    artifacts = {artifact["key"]: artifact["data"] for artifact in ask(server, "artifacts", run["id"])}
    assert artifacts["siftline-progress-test"] == 100
    assert {"siftline-result-test", "siftline-report-test"} <= artifacts.keys()
