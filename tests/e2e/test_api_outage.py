"""The Prefect server goes away in mid-run: chunks go on, and when it is back, it learns the truth."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import Shell, finish, free_port, write_config
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


@dataclass
class Server:
    """A Prefect server that can go away and come back, with the same port and database."""

    shell: Shell
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.shell.api_url = f"http://127.0.0.1:{self.port}/api"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--no-ui")
        log = self.shell.directory / "server.log"
        process = self.shell.start("prefect", "server", "start", *address, log=log)

        def healthy() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.get(f"{self.shell.api_url}/health", timeout=5).is_success
            except httpx.TransportError:
                return False

        wait_until(healthy, "the Prefect server is up", 120)
        return process

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """It is not there: connections are refused."""
        self.end()
        yield
        self._process = self._start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there, and does not answer."""
        self.send(signal.SIGSTOP)
        yield
        self.send(signal.SIGCONT)

    def ask(self, kind: str) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.shell.api_url}/{kind}/filter", json={}, timeout=120)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with nothing_left_behind():
        server = Server(Impatient(tmp_path))
        try:
            yield server
        finally:
            server.end()
            server.shell.kill_everybody()


@pytest.mark.parametrize("outage", [Server.killed, Server.stopped])
def test_chunks_go_on_and_states_and_artifacts_catch_up(
    server: Server, outage: Callable[[Server], AbstractContextManager[None]]
) -> None:
    shell = server.shell
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

    (run,) = server.ask("flow_runs")
    assert (run["id"], run["state_name"]) == (result["flow_run_id"], "Completed")

    def states() -> dict[str, str]:
        return {run["name"]: run["state_name"] for run in server.ask("task_runs")}

    wait_until(
        lambda: states() == dict.fromkeys(STEPS, "Completed"), "the states of the tasks have caught up"
    )
    artifacts = {artifact["key"]: artifact["data"] for artifact in server.ask("artifacts")}
    assert artifacts["siftline-progress"] == 100
    assert "siftline-result" in artifacts
