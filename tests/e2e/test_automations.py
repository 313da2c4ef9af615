"""Automations of a server: recovery of failed runs, detection of dead ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.processes import Shell, finish, forget_deployments, running
from tests.faults import nothing_left_behind, wait_until
from tests.flows.commands import call_siftline

FILE = Path(__file__).parents[2] / "deployments/automations.yaml"

# Flows that do nothing, under the names that the automations look for.
FLOWS = """
import sys, time
from prefect import flow
from prefect.runtime import flow_run
from siftline.errors import ConfigError
from siftline.flows.run.lifecycle import emit_recoverable

@flow(name="batch-detection", on_failure=[emit_recoverable])
def batch_detection(end):
    print(flow_run.id, flush=True)
    if end == "never":
        time.sleep(600)
    if end == "for good":
        raise ConfigError("nothing can be done", "change it")
    raise ValueError("no")

@flow(name="recovery", on_failure=[emit_recoverable])
def recovery(flow_run_id: str, fail: bool = False):
    print(flow_run.id, flush=True)
    if fail:
        raise ValueError("no")

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]: recovery.serve(name="recovery")
        case ends:
            for end in ends:
                if end == "recovery": recovery("of another run", fail=True, return_state=True)
                else: batch_detection(end, return_state=True)
"""


class Server:
    """What the tests ask the session's server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, path: str, **body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.post(path, json=body).raise_for_status().json()
        return found

    def state(self, run: str) -> tuple[str, str | None]:
        state = self._client.get(f"/flow_runs/{run}").raise_for_status().json()["state"]
        return state["name"], state["message"]

    def recoveries(self) -> dict[str, str]:
        """The state of every run of the deployment, by the run that it is to recover."""
        runs = self.ask("/flow_runs/filter", deployments={"name": {"any_": ["recovery"]}})
        found = {run["parameters"]["flow_run_id"]: run["state_name"] for run in runs}
        assert len(found) == len(runs), "a run is recovered twice"
        return found

    def wait_for_recovery(self, run: str) -> None:
        wait_until(lambda: self.recoveries().get(run) == "Completed", f"{run} is recovered", 300)

    def has_heartbeat(self, run: str) -> bool:
        chosen = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run}"]},
        }
        answer = self._client.post("/events/filter", json={"filter": chosen}).raise_for_status()
        return bool(answer.json()["events"])


@pytest.fixture(scope="module")
def server(api_url: str) -> Iterator[Server]:
    with httpx.Client(base_url=api_url, timeout=120) as client:
        yield Server(client)
    forget_deployments(api_url)


@pytest.fixture(scope="module")
def served(prefect_server: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The recovery is served, and the automations are applied: as they are, but for less patience."""
    shell = Shell(tmp_path_factory.mktemp("automations"), prefect_server)
    (shell.directory / "trivial.py").write_text(FLOWS)
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    values["automations"][0]["actions"][0]["schedule_after"] = 0
    values["automations"][1]["trigger"]["within"] = 10
    (shell.directory / "automations.yaml").write_text(yaml.safe_dump(values))
    try:
        with nothing_left_behind():
            log = shell.directory / "serve.log"
            with running(shell.start("python", "trivial.py", "serve", log=log)):
                wait_until(lambda: server.ask("/deployments/filter"), "the recovery is deployed")
                yield shell
            shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


@pytest.fixture(scope="module")
def applied(served: Shell) -> Shell:
    finished = call_siftline(served, "automations", "apply", "automations.yaml")
    assert finished.status == 0, finished.err
    assert finished.out == "created siftline-recovery\ncreated siftline-zombies\n"
    return served


@pytest.fixture(scope="module")
def ended(applied: Shell) -> list[str]:
    """Runs that failed for good, or badly, and a recovery that failed, which all happened in one process."""
    finished = applied.run("python", "trivial.py", "for good", "badly", "recovery")
    assert finished.status == 0, finished.err
    return finished.out.split()


@pytest.mark.soak
def test_failed_runs_and_recoveries_are_recovered_and_those_that_failed_for_good_are_not(
    ended: list[str], server: Server
) -> None:
    for_good, failed, recovery = ended

    server.wait_for_recovery(failed)
    server.wait_for_recovery(recovery)

    assert server.state(for_good)[0] == "Failed"
    assert for_good not in server.recoveries()


@pytest.mark.soak
def test_a_killed_run_is_found_by_its_missing_heartbeats_and_recovered(
    applied: Shell, ended: list[str], server: Server
) -> None:
    process = applied.start("python", "trivial.py", "never")
    assert process.stdout is not None
    killed = process.stdout.readline().strip()
    wait_until(lambda: server.has_heartbeat(killed), "its first heartbeat has arrived", 120)
    process.kill()
    finish(process)
    assert server.state(killed)[0] == "Running"

    server.wait_for_recovery(killed)

    assert server.state(killed) == ("Crashed", "No heartbeat for 90 seconds.")
    assert server.state(ended[0])[0] == "Failed", "it ended, and needs no heartbeat"


def test_applying_again_changes_nothing(applied: Shell) -> None:
    finished = call_siftline(applied, "automations", "apply", "automations.yaml")

    assert finished.out == "unchanged siftline-recovery\nunchanged siftline-zombies\n"


def test_a_mistake_exits_2_and_no_server_exits_1(applied: Shell, tmp_path: Path) -> None:
    wrong = call_siftline(applied, "automations", "apply", "nowhere.yaml")
    assert (wrong.status, wrong.complaint().count("\n")) == (2, 0)

    nobody = call_siftline(Shell(tmp_path), "automations", "apply", applied.directory / "automations.yaml")
    assert (nobody.status, nobody.complaint().count("\n")) == (1, 0)
    assert "set PREFECT_API_URL" in nobody.err
