"""From prefect.yaml to a published result: a real server, a real work pool, a real worker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from siftline import open_results
from siftline.jobs.record import read_job
from siftline.jobs.status import batch_statuses
from tests.e2e.chaos import Job
from tests.e2e.processes import Shell, forget_deployments, running
from tests.faults import nothing_left_behind, wait_until
from tests.flows.batches import configuration, receipt_files
from tests.flows.commands import call_siftline

ROOT = Path(__file__).parents[2]
FLIGHTS = 3000
STOPPED_CHUNKS = 150
# Slow enough to be stopped, on one worker.
SLOW = {
    "detector": {"params": {"n_estimators": 200}, "sample_rows": 5000},
    "cluster": {"kind": "local", "workers": 1},
}


def write_flights(path: Path) -> None:
    """A small file with the columns of the flights of 2013."""
    random = np.random.default_rng(0)
    delays = random.normal(10, 30, (FLIGHTS, 2)).round()
    flights = pd.DataFrame(
        {
            "dep_delay": delays[:, 0],
            "arr_delay": delays[:, 1],
            "air_time": random.normal(150, 60, FLIGHTS).round(),
            "distance": random.integers(80, 3000, FLIGHTS),
            "hour": random.integers(5, 23, FLIGHTS),
            "time_hour": pd.date_range("2013-01-01", periods=FLIGHTS, freq="h"),
            "carrier": "UA",
            "flight": random.integers(1, 5000, FLIGHTS),
            "origin": "JFK",
            "dest": "LAX",
        }
    )
    path.parent.mkdir()
    flights.to_csv(path, index=False)


@pytest.fixture(scope="module")
def checkout(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A copy of the project with small data, deployed, and a worker that polls its work pool."""
    directory = tmp_path_factory.mktemp("checkout") / "siftline"
    directory.mkdir()
    shutil.copy(ROOT / "prefect.yaml", directory)
    for name in ("flows", "tasks"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    write_flights(directory / "data/flights.csv")
    shell = Shell(directory, prefect_server)
    try:
        with nothing_left_behind():
            created = shell.run(
                "prefect", "work-pool", "create", "siftline", "--type", "process", "--overwrite"
            )
            assert created.status == 0, created.err
            deployed = shell.run("prefect", "--no-prompt", "deploy", "--all")
            assert deployed.status == 0, deployed.out + deployed.err
            elsewhere = Shell(tmp_path_factory.mktemp("elsewhere"), prefect_server, shell.mark)
            worker = elsewhere.start(
                *("prefect", "worker", "start", "--pool", "siftline"), log=elsewhere.directory / "worker.log"
            )
            with running(worker):
                yield shell
            forget_deployments(prefect_server)
            shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


def inspect_deployment(checkout: Shell) -> dict[str, Any]:
    answer = httpx.get(f"{checkout.api_url}/deployments/name/batch-detection/flights-nightly", timeout=120)
    deployment = answer.raise_for_status().json()
    assert isinstance(deployment, dict)
    return deployment


def post(checkout: Shell, path: str, body: dict[str, Any]) -> httpx.Response:
    """Post to the server, once its database has time for it."""

    def answer() -> httpx.Response | None:
        given = httpx.post(f"{checkout.api_url}{path}", json=body, timeout=120)
        return given if given.status_code != httpx.codes.SERVICE_UNAVAILABLE else None

    return wait_until(answer, "the server's database has time for it")


def start_run(checkout: Shell, config: dict[str, Any], **parameters: Any) -> httpx.Response:
    """Start a run of the deployment with a configuration of its own."""
    path = f"/deployments/{inspect_deployment(checkout)['id']}/create_flow_run"
    return post(checkout, path, {"parameters": {"config": config, **parameters}})


def start_slow_run(checkout: Shell, home: Path, **parameters: Any) -> tuple[Job, str]:
    """Start a slow run, and return its job and id once it has committed some chunks."""
    job = Job(Shell(home, checkout.api_url, checkout.mark), STOPPED_CHUNKS, 500, **SLOW)
    run = start_run(checkout, job.values, **parameters).raise_for_status().json()["id"]
    wait_until(lambda: len(job.committed()) >= 4, "some chunks are committed", 300)
    return job, run


def test_deploying_registers_the_nightly_run_with_its_schedule_and_its_form(checkout: Shell) -> None:
    deployment = inspect_deployment(checkout)

    (schedule,) = deployment["schedules"]
    assert schedule["slug"] == "nightly"
    assert schedule["active"] is True
    assert schedule["schedule"]["cron"] == "30 3 * * *"
    assert schedule["schedule"]["timezone"] == "America/New_York"
    assert deployment["work_pool_name"] == "siftline"
    assert deployment["entrypoint"] == "siftline.flows.batch_detection.batch_detection"
    assert deployment["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(checkout.directory)}}
    ]
    written = yaml.safe_load((ROOT / "deployments/flights.yaml").read_text(encoding="utf-8"))
    assert deployment["parameters"]["config"] == written
    schema = deployment["parameter_openapi_schema"]
    assert schema["required"] == ["config"]
    assert {"BatchConfig", "SourceConfig", "OutputConfig"} <= schema["definitions"].keys()


def test_the_server_plans_the_nightly_runs_in_their_timezone(checkout: Shell) -> None:
    chosen = {"deployments": {"id": {"any_": [inspect_deployment(checkout)["id"]]}}}

    def planned() -> list[dict[str, Any]]:
        states = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        answer = httpx.post(f"{checkout.api_url}/flow_runs/filter", json={**chosen, **states}, timeout=120)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found

    for run in wait_until(planned, "the server has planned runs"):
        start = datetime.fromisoformat(run["expected_start_time"]).astimezone(ZoneInfo("America/New_York"))
        assert (start.hour, start.minute) == (3, 30)


def test_the_file_of_the_pipeline_gives_the_same_deployment(checkout: Shell) -> None:
    shutil.copytree(ROOT / "deployments", checkout.directory / "deployments")

    applied = call_siftline(checkout, "pipelines", "apply", "deployments/flights-nightly.yaml")

    assert applied.status == 0, applied.err
    assert applied.out.startswith("flights-nightly: up to date\n")


def test_deploying_again_changes_nothing(checkout: Shell) -> None:
    before = inspect_deployment(checkout)

    assert checkout.run("prefect", "--no-prompt", "deploy", "--all").status == 0

    after = inspect_deployment(checkout)
    assert after["id"] == before["id"]
    assert [one["slug"] for one in after["schedules"]] == ["nightly"]


def test_the_deployment_as_it_is_finds_its_data_and_publishes_in_the_checkout(checkout: Shell) -> None:
    finished = checkout.run(
        *("prefect", "deployment", "run", "batch-detection/flights-nightly"),
        *("--watch", "--watch-interval", "1"),
    )

    assert finished.status == 0, finished.out + finished.err
    results = open_results(checkout.directory / "results/flights")
    assert (results.manifest.name, results.manifest.rows) == ("flights", FLIGHTS)
    assert results.manifest.anomaly_count == results.anomalies.num_rows >= 3
    assert (checkout.directory / ".siftline/jobs").is_dir()


def test_a_run_that_the_form_would_refuse_is_refused(checkout: Shell, tmp_path: Path) -> None:
    answer = start_run(checkout, {**configuration(tmp_path), "treshold": {}})

    assert answer.is_client_error
    assert "treshold" in answer.text


@pytest.mark.soak
def test_a_run_cancelled_with_prefect_is_cancelled_leaves_nobody_and_goes_on(
    checkout: Shell, tmp_path: Path
) -> None:
    before = {process.pid for process in checkout.processes()}
    job, run = start_slow_run(checkout, tmp_path)

    cancelled = checkout.run("prefect", "flow-run", "cancel", run)

    assert cancelled.status == 0, cancelled.err
    wait_until(lambda: job.states()[run] == ("CANCELLED", "Cancelled"), "the run is cancelled", 120)
    wait_until(lambda: {one.pid for one in checkout.processes()} <= before, "nobody is left of it")
    assert job.held_by is None
    assert job.directory is not None
    assert read_job(job.directory).outcome == "cancelled"
    committed = len(job.committed())
    assert 4 <= committed < STOPPED_CHUNKS

    serial = ("--set", "cluster={kind: serial}")
    result = call_siftline(job.shell, "run", job.config, "--json", *serial).json()

    assert (result["chunks_reused"], result["chunks_computed"]) == (committed, STOPPED_CHUNKS - committed)
    assert job.states()[run] == ("CANCELLED", "Cancelled")


@pytest.mark.soak
def test_a_suspended_run_stops_in_order_and_goes_on_when_it_is_resumed(
    checkout: Shell, tmp_path: Path
) -> None:
    before = {process.pid for process in checkout.processes()}
    job, run = start_slow_run(checkout, tmp_path, fresh=True)

    # As the button of Prefect's UI does.
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    details = {"pause_timeout": until, "pause_reschedule": True}
    state = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    post(checkout, f"/flow_runs/{run}/set_state", {"state": state}).raise_for_status()

    wait_until(lambda: {one.pid for one in checkout.processes()} <= before, "nobody is left of it")
    assert job.states()[run] == ("PAUSED", "Suspended")
    assert job.tags()[run] == ["siftline", "siftline:suspended"]
    assert job.held_by is None
    committed = job.committed()
    assert 4 <= len(committed) < STOPPED_CHUNKS
    assert job.directory is not None
    assert read_job(job.directory).outcome == "suspended"
    names = ["siftline.job.suspended", "siftline.job.recoverable"]
    of_run = {"id": [f"prefect.flow-run.{run}"]}
    events = {"filter": {"event": {"name": names}, "resource": of_run}}
    told = wait_until(
        lambda: post(checkout, "/events/filter", events).raise_for_status().json()["events"], "it is told"
    )
    assert [(one["event"], one["resource"]["prefect.resource.id"]) for one in told] == [
        ("siftline.job.suspended", f"prefect.flow-run.{run}")
    ]

    post(checkout, f"/flow_runs/{run}/resume", {}).raise_for_status()

    wait_until(lambda: job.states()[run] == ("COMPLETED", "Completed"), "it has gone on", 300)
    assert job.tags()[run] == ["siftline"]
    manifest = open_results(job.output).manifest
    assert (manifest.flow_run_id, manifest.chunks) == (run, STOPPED_CHUNKS)
    assert committed <= job.committed(), "it went on with its own chunks, fresh as it was"


def test_a_run_whose_process_is_killed_is_taken_up_by_the_recovery_deployment(
    checkout: Shell, tmp_path: Path
) -> None:
    config = configuration(tmp_path, rows=4000, chunk_rows=100)
    config["detector"]["params"]["n_estimators"] = 300
    with httpx.Client(base_url=str(checkout.api_url), timeout=120) as server:

        def ask(path: str, **body: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = server.post(path, json=body).raise_for_status().json()
            return found

        def recovery_of(run: str) -> dict[str, Any] | None:
            runs = ask("/flow_runs/filter", deployments={"name": {"any_": ["recovery"]}})
            found = [one for one in runs if one["parameters"]["flow_run_id"] == run]
            assert len(found) < 2, "it is taken up twice"
            return found[0] if found and found[0]["state_type"] == "COMPLETED" else None

        at_once = tmp_path / "automations.yaml"
        text = (ROOT / "deployments/automations.yaml").read_text(encoding="utf-8")
        at_once.write_text(text.replace("schedule_after: 90", "schedule_after: 0"), encoding="utf-8")
        applied = call_siftline(checkout, "automations", "apply", at_once)
        assert applied.status == 0, applied.err
        try:
            run = start_run(checkout, config).raise_for_status().json()["id"]
            receipts = tmp_path / "checkpoint"
            wait_until(lambda: len(receipt_files(receipts)) > 3, "some chunks are done", 300)
            (process,) = [one for one in checkout.processes() if "prefect.engine" in " ".join(one.cmdline())]
            assert process.environ()["PREFECT__FLOW_RUN_ID"] == run
            process.kill()
            recovery = wait_until(lambda: recovery_of(run), "its job is taken up and done", 300)
        finally:
            for automation in ask("/automations/filter"):
                gone = f"/automations/{automation['id']}"
                # A busy SQLite database refuses for a moment.
                wait_until(lambda gone=gone: server.delete(gone).is_success, "the automation is gone")

        assert recovery["state_name"] == "Completed"
        assert server.get(f"/flow_runs/{run}").json()["state_name"] == "Crashed"
    manifest = open_results(tmp_path / "output").manifest
    assert (manifest.rows, manifest.complete, manifest.flow_run_id) == (4000, True, recovery["id"])

    def published() -> bool:
        (job,) = batch_statuses(str(receipts))
        return (job.state, job.chunks.done) == ("completed", 40)

    wait_until(published, "nobody works on the job any more")
