"""A Prefect API that is gone when a run ends: the job ends as it did, and a line says the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import State
from prefect.client.orchestration import SyncPrefectClient

from siftline import open_results, score
from tests.e2e.processes import Shell, write_config
from tests.flows.batches import FEATURES, configuration
from tests.flows.commands import Siftline, inside

PUBLISHED = "the result is published, but the run could not be ended on the server: the Prefect API was lost"


@pytest.fixture(autouse=True)
def no_final_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is gone when the final state of a run is set."""
    original = SyncPrefectClient.set_flow_run_state

    def set_state(client: SyncPrefectClient, run: UUID, state: State[Any], force: bool = False) -> Any:
        if state.is_final():
            raise httpx.ConnectError("gone")
        return original(client, run, state, force)

    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", set_state)


def test_a_published_job_is_a_success_with_a_line_about_the_server(shell: Shell, siftline: Siftline) -> None:
    config = write_config(shell.directory / "job.yaml", configuration(shell.directory))

    finished = siftline("run", config, "--json")

    assert finished.status == 0, finished.err
    assert finished.json()["state"] == "Completed"
    assert open_results(shell.directory / "output").manifest.rows == 600
    assert finished.complaint() == f"siftline: {PUBLISHED} (ConnectError)"


def test_a_failed_job_ends_with_its_own_error(shell: Shell, siftline: Siftline) -> None:
    config = write_config(shell.directory / "job.yaml", configuration(shell.directory))
    torn = shell.directory / "rows-600.parquet"
    content = bytearray(torn.read_bytes())
    content[4:6000] = bytes(5996)  # a whole footer, and nothing where the rows were
    torn.write_bytes(content)

    finished = siftline("run", config)

    assert finished.status == 2, finished.err
    assert "rows-600.parquet: cannot be read: " in finished.complaint()


def test_a_call_from_python_returns_the_result(shell: Shell, tmp_path: Path) -> None:
    source = configuration(tmp_path)["source"]["path"]
    with inside(shell):
        results = score(source, key=["id"], features=FEATURES, output=tmp_path / "scored")

    assert results.manifest.rows == 600
