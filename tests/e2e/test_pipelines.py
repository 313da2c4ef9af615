"""Pipelines on a real server: applied, run by a worker, published, cancelled, and filled in for the past."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest

from siftline import load_config, open_results
from siftline.errors import ConfigError
from siftline.flows.control.use_cases import BatchJob, cancel_run, create_batch_job, create_scheduled_pipeline
from siftline.jobs.intervals import Ledger
from tests.e2e.pipelines import BATCH, DAILY, Server, apply, write_pipeline
from tests.e2e.processes import Shell, forget_deployments, running, write_config
from tests.faults import nothing_left_behind, wait_until
from tests.flows.batches import write_rows
from tests.flows.commands import call_siftline, inside

FIRST, DAYS = date(2026, 3, 4), 3


@pytest.fixture(scope="module")
def project(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A directory with data and pipelines, and a worker that polls a work pool of its own."""
    shell = Shell(tmp_path_factory.mktemp("project"), prefect_server)
    write_rows(shell.directory / "data/ticks.parquet", 300)
    for day in range(DAYS):
        write_rows(shell.directory / f"data/{FIRST + timedelta(days=day)}.parquet", 200, seed=day)
    try:
        with nothing_left_behind():
            log = shell.directory / "worker.log"
            worker = shell.start(
                *("prefect", "worker", "start", "--pool", "pipelines", "--type", "process"), log=log
            )
            with running(worker):
                wait_until(lambda: "started!" in log.read_text(), "the worker polls", 300)
                yield shell
            forget_deployments(prefect_server)
            shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


@pytest.fixture
def server(prefect_server: str) -> Server:
    return Server(prefect_server)


def test_applying_again_changes_what_the_file_changes_and_leaves_the_rest(
    project: Shell, server: Server
) -> None:
    nightly = {"slug": "nightly", "cron": "30 3 * * *", "timezone": "America/New_York"}
    weekly = {"slug": "weekly", "cron": "0 6 * * 1"}
    path = write_pipeline(project, "nightly", schedules=[nightly, weekly], description="As it was.")
    shown = apply(project, path, "--dry-run")
    assert "+ deployment" in shown
    assert "nothing was changed" in shown
    assert httpx.get(f"{project.api_url}/deployments/name/batch-detection/nightly").status_code == 404
    apply(project, path)
    before = server.deployment("nightly")
    (old,) = [one for one in before["schedules"] if one["slug"] == "nightly"]
    by_hand = {"schedule": {"interval": 86400}, "active": False}
    schedules = f"{project.api_url}/deployments/{before['id']}/schedules"
    # A busy SQLite database refuses for a moment.
    wait_until(lambda: httpx.post(schedules, json=[by_hand]).is_success, "a schedule is made by hand")
    off = {"active": False}
    wait_until(lambda: httpx.patch(f"{schedules}/{old['id']}", json=off).is_success, "one is paused")
    assert "nightly: up to date" in apply(project, path)

    path = write_pipeline(
        project, "nightly", schedules=[{**nightly, "cron": "45 3 * * *"}], description="As it is."
    )
    shown = apply(project, path)

    assert "~ deployment batch-detection/nightly: description, parameters" in shown
    assert "~ schedule nightly of nightly" in shown
    assert "- schedule weekly of nightly" in shown
    after = server.deployment("nightly")
    assert (after["id"], after["description"]) == (before["id"], "As it is.")
    found = {one["slug"]: one for one in after["schedules"]}
    assert found.keys() == {"nightly", None}
    assert found["nightly"]["schedule"]["cron"] == "45 3 * * *"
    assert found["nightly"]["active"] is False, "it was paused, and stays so"
    assert call_siftline(project, "pipelines", "remove", "nightly").status == 0


def test_what_is_wrong_with_a_pipeline_is_told_before_anything_changes(
    project: Shell, server: Server
) -> None:
    unknown = {**BATCH, "output": {"path": "results/wrong"}, "notify": [{"block": "slack-webhook/nobody"}]}
    path = write_pipeline(project, "wrong", batch=unknown)
    finished = call_siftline(project, "pipelines", "apply", path)
    assert finished.status == 2
    assert "there is no block slack-webhook/nobody on the server" in finished.complaint()

    long = {"text": "x" * 600_000}
    path = write_pipeline(project, "wrong", parameters=long)
    finished = call_siftline(project, "pipelines", "apply", path)
    assert "and the server takes 524,288" in finished.complaint()

    path = write_pipeline(project, "wrong", schedules=[{"cron": "soon"}])
    finished = call_siftline(project, "pipelines", "apply", path)
    assert (finished.status, "cron" in finished.complaint()) == (2, True)

    nowhere = write_pipeline(project, "wrong", work_pool="nobody-there")
    assert "work pool nobody-there has no worker" in apply(project, nowhere)
    shown = call_siftline(project, "status", "wrong")
    assert shown.out.splitlines()[0] == "wrong  created"
    assert "no run was started yet, and work pool nobody-there has no worker" in shown.out
    assert call_siftline(project, "pipelines", "remove", "wrong").status == 0
    gone = call_siftline(project, "pipelines", "pause", "wrong")
    assert (gone.status, "the server does not have it" in gone.complaint()) == (2, True)


def submit(project: Shell, config: Path, pool: str = "pipelines") -> BatchJob:
    with inside(project):
        return create_batch_job(load_config(config), work_pool=pool)


def test_a_submitted_job_is_named_at_once_and_can_be_cancelled(project: Shell, server: Server) -> None:
    batch = {**BATCH, "name": "single", "output": {"path": "results/single"}}
    config = write_config(project.directory / "single-batch.yaml", batch)

    job = submit(project, config)

    wait_until((project.directory / "results/single/manifest.json").exists, "it is published", 300)
    manifest = open_results(project.directory / "results/single").manifest
    assert (manifest.job_id, manifest.flow_run_id) == (job.job_id, str(job.flow_run_id))

    assert call_siftline(project, "pipelines", "remove", "on-demand").status == 0

    job = submit(project, config, pool="nobody-there")
    with inside(project):
        assert cancel_run(job.flow_run_id).state == "cancelled"
    assert server.runs("on-demand", "Cancelled")
    with inside(project), pytest.raises(ConfigError, match=r"has ended already \(Cancelled\)"):
        cancel_run(job.flow_run_id)
    assert call_siftline(project, "pipelines", "remove", "on-demand").status == 0


@pytest.mark.soak
def test_prefects_retry_of_a_failed_run_does_its_job(project: Shell, server: Server) -> None:
    batch = {**BATCH, "source": {**BATCH["source"], "path": "data/late.parquet"}}
    batch["output"] = {"path": "results/again"}
    late = project.directory / "data/late.parquet"
    write_rows(late, 300)
    apply(project, write_pipeline(project, "again", batch=batch))
    late.unlink()
    run = call_siftline(project, "pipelines", "run", "again", "--json").json()["flow_run_id"]
    (failed,) = wait_until(lambda: server.runs("again", "Failed"), "its file is not there", 300)
    assert "siftline:for-good" in failed["tags"]
    write_rows(late, 300)

    # As the button of Prefect's UI does.
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    retry = f"{project.api_url}/flow_runs/{run}/set_state"
    wait_until(lambda: httpx.post(retry, json={"state": state, "force": False}).is_success, "it is retried")

    (done,) = wait_until(lambda: server.runs("again", "Completed"), "it is done now", 300)
    assert (done["id"], done["run_count"]) == (run, 2)
    assert "siftline:for-good" not in done["tags"]
    assert open_results(project.directory / "results/again").manifest.flow_run_id == run
    assert call_siftline(project, "pipelines", "remove", "again").status == 0


def test_a_pipeline_can_be_created_from_python_and_again_without_a_change(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(project, "from-python", schedules=[{"slug": "yearly", "cron": "0 0 1 1 *"}])

    with inside(project):
        first, again = (create_scheduled_pipeline(path) for _ in range(2))

    for created in (first, again):
        assert (created.name, created.schedules) == ("from-python", {"yearly": True})
    assert [one["slug"] for one in server.deployment("from-python")["schedules"]] == ["yearly"]
    assert "from-python: up to date" in apply(project, path)
    assert call_siftline(project, "pipelines", "remove", "from-python").status == 0


@pytest.mark.soak
def test_a_backfill_that_is_killed_goes_on_and_every_day_is_published_once(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(project, "daily", batch=DAILY, schedules=[{"cron": "0 0 * * *", "active": False}])
    apply(project, path)
    last = FIRST + timedelta(days=DAYS - 1)
    command = ("backfill", "daily", "--from", str(FIRST), "--to", str(last), "--parallel", "2")
    process = project.start("siftline", *command)
    wait_until(lambda: server.runs("daily", "Completed"), "a day is done", 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    finished = call_siftline(project, *command)

    assert finished.status == 0, finished.err
    head, *lines = finished.out.splitlines()
    assert head.split() == ["INTERVAL", "STATE", "ROWS", "ANOMALIES", "RUN"]
    assert [line.split()[0] for line in lines] == [str(FIRST + timedelta(days=day)) for day in range(DAYS)]
    runs = server.runs("daily")
    assert len(runs) == DAYS, "no day has a second run"
    assert {run["state_name"] for run in runs} == {"Completed"}
    assert {line.split()[-1] for line in lines} == {run["id"] for run in runs}
    progress = [line for line in finished.err.splitlines() if line[:1].isdigit()]
    assert (progress[-1].split()[0], progress[-1].split()[-1]) == (f"{DAYS}/{DAYS}", "Completed")
    for day in range(DAYS):
        manifest = open_results(project.directory / f"results/{FIRST + timedelta(days=day)}").manifest
        assert manifest.config["source"]["path"] == f"data/{FIRST + timedelta(days=day)}.parquet"
    entries = list(Ledger(project.directory / ".siftline", "daily").entries())
    assert [entry.outcome for entry in entries] == ["published"] * DAYS

    again = call_siftline(project, *command, "--only-missing")
    assert again.out.count("published before") == DAYS
    assert len(server.runs("daily")) == DAYS
    (table,) = [
        one
        for one in server.ask("/artifacts/filter", sort="CREATED_DESC")
        if one["key"] == "siftline-backfill-daily"
    ][:1]
    assert len(json.loads(table["data"])) == DAYS
    assert call_siftline(project, "pipelines", "remove", "daily").status == 0
