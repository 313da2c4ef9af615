"""Pipelines on a real server: applied, fired by their schedules, run by a worker, published and told of."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from siftline import open_results
from siftline.jobs.intervals import Ledger
from tests.e2e.processes import Shell, dask_cluster, finish, running, write_config
from tests.e2e.stacks import INSTALLED, NOT_INSTALLED, place
from tests.faults import nothing_left_behind, wait_until
from tests.flows.batches import FEATURES, write_rows
from tests.flows.webhook import Webhook, serving

FIRST, DAYS = date(2026, 3, 4), 10
BATCH = {
    "source": {"path": "data/ticks.parquet", "key": ["id"], "features": FEATURES},
    "detector": {"params": {"n_estimators": 10}},
    "chunking": {"rows": 100},
    "cluster": {"kind": "serial"},
}
DAILY = {
    **BATCH,
    "source": {**BATCH["source"], "path": "data/{{ date }}.parquet"},
    "output": {"path": "results/{{ date }}"},
}


class Server:
    """What the tests ask the server."""

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
        runs = self.ask("/flow_runs/filter", deployments={"name": {"any_": [name]}})
        return [run for run in runs if not states or run["state_name"] in states]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All of it on PostgreSQL, where that is installed; on SQLite what asks most of it."""
    either = (
        test_a_schedule_fires_its_run_is_published_and_told_and_pausing_ends_that,
        test_two_triggers_at_once_respect_the_limit_and_the_second_has_nothing_to_do,
    )
    databases = ["sqlite", "postgresql"]
    if metafunc.function not in either:
        databases = databases[-1:] if INSTALLED else databases[:1]
    metafunc.parametrize("api_url", databases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def api_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with one database or the other."""
    if request.param == "sqlite":
        yield request.getfixturevalue("prefect_server")
    elif not INSTALLED:
        pytest.skip(NOT_INSTALLED)
    else:
        for stack in place("postgresql"):
            started = stack.up("--detach")
            assert started.status == 0, started.out + started.err
            yield stack.api_url
            assert stack.down().status == 0


@pytest.fixture(scope="module")
def webhook(api_url: str) -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.fixture(scope="module")
def project(api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A directory with data and pipelines, and a worker that polls a work pool of its own."""
    shell = Shell(tmp_path_factory.mktemp("project"), api_url)
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
                wait_until(lambda: "started!" in log.read_text(), "the worker polls", 60)
                yield shell
            shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


@pytest.fixture
def server(api_url: str) -> Server:
    return Server(api_url)


def write_pipeline(project: Shell, name: str, **fields: Any) -> Path:
    path = project.directory / f"{name}.yaml"
    batch = {**BATCH, "output": {"path": f"results/{name}"}}
    values = {"name": name, "work_pool": "pipelines", "batch": batch, **fields}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def apply(project: Shell, *arguments: str | Path) -> str:
    finished = project.siftline("pipelines", "apply", *arguments)
    assert finished.status == 0, finished.err
    return finished.out


def test_a_schedule_fires_its_run_is_published_and_told_and_pausing_ends_that(
    project: Shell, server: Server, webhook: Webhook
) -> None:
    with dask_cluster(project) as scheduler:
        block = project.run(
            *("python", "-c", BLOCK, str(webhook.port)),
        )
        assert block.status == 0, block.err
        path = write_pipeline(
            project,
            "ticks",
            schedules=[{"every": "5s"}],
            resources={"kind": "address", "address": scheduler, "timeout_seconds": 60},
            notifications=[{"block": "custom-webhook/pipelines", "on": ["completed"]}],
            concurrency={"limit": 1},
        )
        assert "+ deployment batch-detection/ticks with schedule default" in apply(project, path)

        wait_until(lambda: webhook.received, "a run is published and told of", 120)
        assert project.siftline("pipelines", "pause", "ticks").out == "paused ticks\n"

        assert open_results(project.directory / "results/ticks").manifest.rows == 300
        assert "Interval: " in webhook.received[0].body["body"]
        done = wait_until(lambda: server.runs("ticks", "Completed"), "it is completed")
        assert done[-1]["name"].startswith("ticks 2")
        assert done[-1]["auto_scheduled"]
        wait_until(lambda: not server.runs("ticks", "Running", "Pending"), "nothing runs any more")
        assert not server.runs("ticks", "Scheduled")

        assert "ticks: up to date" in apply(project, path)
        assert server.deployment("ticks")["paused"], "applying leaves it paused"
        assert project.siftline("pipelines", "resume", "ticks").out == "resumed ticks\n"
        assert not server.deployment("ticks")["paused"]
        assert project.siftline("pipelines", "remove", path).out.startswith("- deployment")
    assert not server.runs("ticks", "Scheduled")


BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
CustomWebhookNotificationBlock(
    name="pipelines",
    url=f"http://127.0.0.1:{sys.argv[1]}/",
    json_data={"subject": "{{subject}}", "body": "{{body}}"},
).save("pipelines", overwrite=True, _sync=True)
"""


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
    assert project.siftline("pipelines", "remove", "nightly").status == 0


def test_what_is_wrong_with_a_pipeline_is_told_before_anything_changes(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(project, "wrong", notifications=[{"block": "slack-webhook/nobody"}])
    finished = project.siftline("pipelines", "apply", path)
    assert finished.status == 2
    assert "there is no block slack-webhook/nobody on the server" in finished.complaint()

    long = {"text": "x" * 600_000}
    path = write_pipeline(project, "wrong", parameters=long)
    finished = project.siftline("pipelines", "apply", path)
    assert "and the server takes 524,288" in finished.complaint()

    path = write_pipeline(project, "wrong", schedules=[{"cron": "soon"}])
    finished = project.siftline("pipelines", "apply", path)
    assert (finished.status, "cron" in finished.complaint()) == (2, True)

    nowhere = write_pipeline(project, "wrong", work_pool="nobody-there")
    assert "work pool nobody-there has no worker" in apply(project, nowhere)
    told = project.siftline("status", "wrong")
    assert "work pool nobody-there has no worker" in told.err
    assert project.siftline("pipelines", "remove", "wrong").status == 0
    gone = project.siftline("pipelines", "pause", "wrong")
    assert (gone.status, "the server does not have it" in gone.complaint()) == (2, True)


def test_two_triggers_at_once_respect_the_limit_and_the_second_has_nothing_to_do(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(
        project,
        "limited",
        batch=DAILY,
        schedules=[{"cron": "0 0 1 1 *", "active": False}],
        concurrency={"limit": 1},
    )
    write_rows(project.directory / f"data/{datetime.now(UTC).year - 1}-01-01.parquet", 200)
    apply(project, path)

    watched = project.start(
        *("prefect", "deployment", "run", "batch-detection/limited", "--watch", "--watch-interval", "1")
    )
    other = project.siftline("pipelines", "run", "limited", "--json").json()["flow_run_id"]
    finished = finish(watched)
    assert finished.status == 0, finished.out

    def over() -> list[dict[str, Any]]:
        runs = server.runs("limited", "Completed", "AlreadyPublished")
        return runs if len(runs) == 2 else []

    first, second = sorted(wait_until(over, "both are over", 120), key=lambda run: run["start_time"])
    assert {first["state_name"], second["state_name"]} == {"Completed", "AlreadyPublished"}
    assert first["end_time"] <= second["start_time"]
    told = project.siftline("status", other, "--json").json()
    assert (told["final"], told["pipeline"]) == (True, "limited")
    assert project.siftline("pipelines", "remove", "limited").status == 0


SUBMIT = """
import sys
from flows.control.use_cases import create_batch_job
from siftline import load_config
print(create_batch_job(load_config(sys.argv[1]), work_pool="pipelines").model_dump_json())
"""
CANCEL = "import sys; from flows.control.use_cases import cancel_run; print(cancel_run(sys.argv[1]).state)"


def test_a_submitted_job_is_named_at_once_and_can_be_cancelled(project: Shell, server: Server) -> None:
    batch = {**BATCH, "name": "single", "output": {"path": "results/single"}}
    config = write_config(project.directory / "single-batch.yaml", batch)

    job = project.run("python", "-c", SUBMIT, config).json()

    wait_until((project.directory / "results/single/manifest.json").exists, "it is published", 120)
    manifest = open_results(project.directory / "results/single").manifest
    assert (manifest.job_id, manifest.flow_run_id) == (job["job_id"], job["flow_run_id"])

    slow = {**batch, "detector": {"params": {"n_estimators": 2000}}, "chunking": {"rows": 1}}
    write_config(config, slow)
    job = project.run("python", "-c", SUBMIT, config).json()
    wait_until(lambda: receipt_files_of(project, job["job_id"]), "some chunks are done", 120)
    cancelled = project.run("python", "-c", CANCEL, job["flow_run_id"])
    assert cancelled.out.strip() in ("Cancelling", "Cancelled"), cancelled.err
    wait_until(lambda: server.runs("on-demand", "Cancelled"), "it is cancelled", 60)
    again = project.run("python", "-c", CANCEL, job["flow_run_id"])
    assert "has ended already (Cancelled)" in again.err
    assert project.siftline("pipelines", "remove", "on-demand").status == 0


CREATE = """
import sys
from flows.control.use_cases import create_scheduled_pipeline
print(create_scheduled_pipeline(sys.argv[1]).model_dump_json())
"""


def test_a_pipeline_can_be_created_from_python_and_again_without_a_change(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(project, "from-python", schedules=[{"slug": "yearly", "cron": "0 0 1 1 *"}])

    first, again = (project.run("python", "-c", CREATE, path) for _ in range(2))

    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert (first.json()["name"], first.json()["schedules"]) == ("from-python", {"yearly": True})
    assert [one["slug"] for one in server.deployment("from-python")["schedules"]] == ["yearly"]
    assert "from-python: up to date" in apply(project, path)
    assert project.siftline("pipelines", "remove", "from-python").status == 0


def receipt_files_of(project: Shell, job_id: str) -> list[Path]:
    return list(project.directory.glob(f".siftline/jobs/{job_id}/receipts/*/*.json"))


def test_a_backfill_that_is_killed_goes_on_and_every_day_is_published_once(
    project: Shell, server: Server
) -> None:
    path = write_pipeline(project, "daily", batch=DAILY, schedules=[{"cron": "0 0 * * *", "active": False}])
    apply(project, path)
    last = FIRST + timedelta(days=DAYS - 1)
    command = ("siftline", "backfill", "daily", "--from", str(FIRST), "--to", str(last), "--parallel", "2")
    process = project.start(*command)
    wait_until(lambda: len(server.runs("daily", "Completed")) >= 3, "three days are done", 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    finished = project.run(*command, seconds=300)

    assert finished.status == 0, finished.err
    lines = finished.out.splitlines()
    assert [line.split()[0] for line in lines] == [str(FIRST + timedelta(days=day)) for day in range(DAYS)]
    runs = server.runs("daily")
    assert len(runs) == DAYS, "no day has a second run"
    assert {run["state_name"] for run in runs} == {"Completed"}
    for day in range(DAYS):
        manifest = open_results(project.directory / f"results/{FIRST + timedelta(days=day)}").manifest
        assert manifest.config["source"]["path"] == f"data/{FIRST + timedelta(days=day)}.parquet"
    entries = list(Ledger(project.directory / ".siftline", "daily").entries())
    assert [entry.outcome for entry in entries] == ["published"] * DAYS

    again = project.run(*command, "--only-missing")
    assert again.out.count("published before") == DAYS
    assert len(server.runs("daily")) == DAYS
    (table,) = [
        one
        for one in server.ask("/artifacts/filter", sort="CREATED_DESC")
        if one["key"] == "siftline-backfill"
    ][:1]
    assert len(json.loads(table["data"])) == DAYS
    assert project.siftline("pipelines", "remove", "daily").status == 0
