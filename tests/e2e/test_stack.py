"""One command starts what a team needs, and one command stops it: real services, on free ports."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from siftline import load_config, open_results
from tests.e2e.pipelines import BATCH, Server, apply, write_pipeline
from tests.e2e.processes import Shell, finish, running, write_config
from tests.e2e.stacks import INSTALLED, NOT_INSTALLED, Place, place
from tests.faults import wait_until
from tests.flows.batches import configuration, scores_digest, write_rows
from tests.flows.commands import call_siftline, inside
from tests.flows.webhook import Webhook, serving
from tests.support import undisturbed_digest

SERVICES = ["postgresql", "prefect-server", "dask-scheduler", "dask-workers", "prefect-worker", "monitor"]


@pytest.fixture(scope="module")
def stack() -> Iterator[Place]:
    """A stack in the background, on PostgreSQL where that is installed."""
    for here in place("postgresql" if INSTALLED else "sqlite"):
        finished = here.up("--detach")
        assert finished.status == 0, finished.out + finished.err
        yield here


@pytest.fixture
def elsewhere() -> Iterator[Place]:
    """A home in which nothing runs."""
    yield from place("sqlite")


@pytest.fixture
def on_postgresql() -> Iterator[Place]:
    """The same, with PostgreSQL."""
    if not INSTALLED:
        pytest.skip(NOT_INSTALLED)
    yield from place("postgresql")


def healthy_services(said: str) -> list[str]:
    return [line.split()[0] for line in said.splitlines() if line.endswith(" healthy")]


def test_a_stack_that_is_up_is_not_started_again_and_is_healthy(stack: Place) -> None:
    finished = stack.up()

    assert finished.status == 0
    assert "already up" in finished.out
    assert healthy_services(finished.out) == (SERVICES if INSTALLED else SERVICES[1:])
    assert f"export PREFECT_API_URL={stack.api_url}" in finished.out


def test_a_job_runs_on_its_scheduler_to_the_same_scores_and_the_services_stay(
    stack: Place, tmp_path: Path
) -> None:
    values = configuration(tmp_path)
    config = write_config(tmp_path / "job.yaml", values)
    before = [stack.process(name) for name in SERVICES]
    cluster = f"cluster={{kind: address, address: '{stack.scheduler}', timeout_seconds: 300}}"
    shell = Shell(tmp_path, stack.api_url, stack.shell.mark)

    finished = call_siftline(shell, "run", config, "--json", "--set", cluster)

    assert finished.status == 0, finished.err
    assert finished.json()["chunks_computed"] == 3
    assert scores_digest(tmp_path / "output") == undisturbed_digest(load_config(config))
    run = httpx.get(f"{stack.api_url}/flow_runs/{finished.json()['flow_run_id']}", timeout=120).json()
    assert run["state_name"] == "Completed"
    assert [stack.process(name) for name in SERVICES] == before


@pytest.fixture(scope="module")
def project(stack: Place) -> Shell:
    """A directory with data and pipelines, for the stack's worker."""
    shell = Shell(stack.shell.directory / "project", stack.api_url, stack.shell.mark)
    write_rows(shell.directory / "data/ticks.parquet", 300)
    return shell


@pytest.fixture(scope="module")
def server(stack: Place) -> Server:
    return Server(stack.api_url)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.mark.soak
def test_runs_by_schedule_and_by_hand_take_turns_are_published_and_told_until_paused(
    stack: Place, project: Shell, server: Server, webhook: Webhook
) -> None:
    with inside(project):
        block = webhook.block("pipelines")
    path = write_pipeline(
        project,
        "ticks",
        pool="siftline",
        batch={
            **BATCH,
            "output": {"path": "results/ticks"},
            "notify": [{"block": block, "on": ["completed"]}],
        },
        schedules=[{"every": "5s"}],
        cluster={"kind": "address", "address": stack.scheduler, "timeout_seconds": 60},
        concurrency={"limit": 1},
    )
    assert "+ deployment batch-detection/ticks with schedule default" in apply(project, path)
    by_hand = call_siftline(project, "pipelines", "run", "ticks", "--json").json()["flow_run_id"]

    def over() -> list[dict[str, Any]]:
        runs = server.runs("ticks", "Completed")
        return sorted(runs, key=lambda run: run["start_time"])

    wait_until(lambda: webhook.received, "a run is published and told of", 300)
    wait_until(
        lambda: {by_hand} < {run["id"] for run in over()}, "the run by hand, and another, are over", 300
    )
    assert call_siftline(project, "pipelines", "pause", "ticks").out == "paused ticks\n"

    assert open_results(project.directory / "results/ticks").manifest.rows == 300
    assert "Interval: " in webhook.received[0].body["body"]
    wait_until(lambda: not server.runs("ticks", "Running", "Pending"), "nothing runs any more")
    done = over()
    assert all(first["end_time"] <= second["start_time"] for first, second in pairwise(done)), "one at a time"
    assert ["siftline:already-published" in run["tags"] for run in done] == [False] + [True] * (len(done) - 1)
    scheduled = next(run for run in done if run["id"] != by_hand)
    assert scheduled["name"].startswith("ticks 2")
    assert scheduled["auto_scheduled"]
    told = call_siftline(project, "status", by_hand, "--json").json()
    assert (told["final"], told["pipeline"]) == (True, "ticks")
    assert not server.runs("ticks", "Scheduled")

    assert "ticks: up to date" in apply(project, path)
    assert server.deployment("ticks")["paused"], "applying leaves it paused"
    assert call_siftline(project, "pipelines", "unpause", "ticks").out == "unpaused ticks\n"
    assert not server.deployment("ticks")["paused"]
    assert call_siftline(project, "pipelines", "remove", path).out.startswith("- deployment")
    assert not server.runs("ticks", "Scheduled")


def test_the_work_pool_is_there(stack: Place) -> None:
    pool = httpx.get(f"{stack.api_url}/work_pools/siftline", timeout=120).json()

    assert (pool["type"], pool["status"]) == ("process", "READY")


def test_everything_listens_on_the_loopback_only(stack: Place) -> None:
    listening = set()
    for identity in stack.record().services.values():
        service = psutil.Process(identity.pid)
        for process in [service, *service.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # processes of databases come and go
                found = process.net_connections("tcp")
                listening |= {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}

    assert listening == {"127.0.0.1"}


@pytest.mark.skipif(not INSTALLED, reason=NOT_INSTALLED)
def test_the_password_is_in_a_file_for_one_user_and_nowhere_else(stack: Place) -> None:
    file = stack.home / "postgresql" / "password"
    password = file.read_text().strip()

    assert file.stat().st_mode & 0o777 == 0o600
    assert all(password not in " ".join(process.cmdline()) for process in stack.shell.processes())
    for path in [*stack.home.glob("logs/*"), stack.home / "stack.json"]:
        assert password not in path.read_text(), path


def test_a_service_that_is_killed_is_started_again(stack: Place) -> None:
    killed = stack.process("dask-workers")
    assert killed is not None
    killed.kill()

    def another() -> psutil.Process | None:
        found = stack.process("dask-workers")
        return found if found != killed else None

    wait_until(another, "the workers are there again")
    wait_until(lambda: "dask-workers" in healthy_services(stack.up().out), "they are healthy")
    assert "dask-workers ended (signal 9)" in (stack.home / "logs" / "stack.log").read_text()


@pytest.mark.soak
def test_what_a_killed_stack_left_is_noticed_its_data_is_kept_and_down_stops_the_new_one(
    stack: Place,
) -> None:
    asked = {"name": "kept", "type": "process"}
    httpx.post(f"{stack.api_url}/work_pools/", json=asked, timeout=120).raise_for_status()
    left = stack.shell.processes()
    psutil.Process(stack.record().supervisor.pid).kill()
    log = stack.shell.directory / "up.log"

    with running(stack.shell.start("siftline", "up", *stack.options, log=log)) as up:
        wait_until(lambda: "Stop it with" in log.read_text() or up.poll() is not None, "it is up", 180)
        kept = httpx.get(f"{stack.api_url}/work_pools/kept", timeout=120)
        assert not set(left) & set(stack.shell.processes())
        down = stack.down()
        ended = finish(up)

    said = log.read_text()
    assert said.startswith("stopped what an earlier `siftline up` left behind: monitor, prefect-worker")
    assert kept.is_success
    names = reversed(SERVICES if INSTALLED else SERVICES[1:])
    assert (down.status, down.out) == (0, f"stopped {', '.join(names)}\n")
    assert (ended.status, said.splitlines()[-1]) == (0, "stopped")
    stack.shell.wait_for_nobody(5)


def test_down_where_nothing_runs_says_so(elsewhere: Place) -> None:
    finished = elsewhere.down()

    assert (finished.status, finished.out) == (0, f"nothing is running in {elsewhere.home}\n")


def test_a_taken_port_is_named_and_nothing_is_started(elsewhere: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finished = elsewhere.up("--dashboard-port", str(port), "--detach")

    assert finished.status == 1
    assert finished.complaint().startswith(f"siftline: port {port} of 127.0.0.1 is taken by ")
    assert f"(process {os.getpid()}); end that, or choose another --dashboard-port" in finished.complaint()
    assert not elsewhere.shell.processes()
    assert not (elsewhere.home / "logs" / "prefect-server.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_amid_the_start_stops_what_was_started(elsewhere: Place, number: signal.Signals) -> None:
    with running(elsewhere.shell.start("siftline", "up", *elsewhere.options)) as up:
        wait_until(lambda: elsewhere.process("prefect-server") or up.poll() is not None, "it starts")
        up.send_signal(number)
        finished = finish(up)

    assert (finished.status, finished.out, finished.err) == (0, "stopped\n", "")
    elsewhere.shell.wait_for_nobody(5)


def test_a_service_that_does_not_start_is_named_with_the_end_of_its_log(elsewhere: Place) -> None:
    (elsewhere.home / "prefect.db").mkdir(parents=True)

    finished = elsewhere.up()

    assert finished.status == 1
    assert finished.complaint().startswith("siftline: prefect-server ended while it started (exit status ")
    assert str(elsewhere.home / "logs" / "prefect-server.log").rpartition("stack/")[2] in finished.complaint()
    elsewhere.shell.wait_for_nobody(5)


def test_what_a_killed_start_left_is_stopped_by_down(on_postgresql: Place) -> None:
    place = on_postgresql
    with running(place.shell.start("siftline", "up", *place.options)) as up:
        wait_until(
            lambda: place.process("prefect-server") or up.poll() is not None, "two services are started"
        )
        up.kill()
        up.wait()

        finished = place.down()

    assert finished.out == "stopped prefect-server, postgresql\n"
    place.shell.wait_for_nobody(5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_a_home_that_postgresql_cannot_reach_is_named(on_postgresql: Place) -> None:
    on_postgresql.shell.directory.chmod(0o700)

    finished = on_postgresql.up()

    assert finished.status == 1
    assert "out of reach for the user postgres" in finished.complaint()
    assert "--database sqlite" in finished.complaint()
