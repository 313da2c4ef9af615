"""Jobs that share a pool of one slot: queued without a process, woken in order, and killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from siftline import open_results
from siftline.flows.control.pools import read_pool
from siftline.flows.control.slot_leases import acquire
from siftline.flows.control.slots import AWAITING, TAG, Claim, put_claim, wake_next
from siftline.flows.server import server as reached
from siftline.jobs.status import batch_statuses
from tests.e2e.chaos import Job
from tests.e2e.pipelines import BATCH, Server, apply, write_pipeline
from tests.e2e.processes import PrefectServer, Shell, finish, running, write_config
from tests.faults import nothing_left_behind, wait_until
from tests.flows.batches import scores_digest, write_rows
from tests.flows.commands import call_siftline, inside

pytestmark = pytest.mark.soak


class Place(Shell):
    """A server here keeps its leases in files, as that of `siftline up`, and looks at them every second."""

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
        }

    def expire_leases(self) -> None:
        """Let the time of all leases pass."""
        leases = self.directory / ".prefect/concurrency_leases"
        past = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
        for path in leases.glob("*-*.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "expiration": past}))
        index = leases / "expirations.json"
        index.write_text(json.dumps(dict.fromkeys(json.loads(index.read_text()), past)))


@pytest.fixture(scope="module")
def place(
    api_url: str, prefect_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, PrefectServer]]:
    """A project with a server of its own, and a pool of one slot there."""
    shell = Place(tmp_path_factory.mktemp("place"))
    with nothing_left_behind():
        server = PrefectServer(shell, prefect_database)
        try:
            pool = shell.directory / "pool.yaml"
            pool.write_text("workers: 1\nmemory: 4GiB\n", encoding="utf-8")
            apply(shell, pool)
            yield shell, server
        finally:
            server.kill()
            shell.kill_everybody()


@contextmanager
def audited(url: str, limit: int = 1) -> Iterator[list[int]]:
    """Sample the slots in use until the end: never more than there are."""
    over, samples = threading.Event(), list[int]()

    def sample() -> None:
        while not over.wait(0.05):
            try:
                found = httpx.get(f"{url}/v2/concurrency_limits/siftline", timeout=5)
            except httpx.TransportError:
                continue  # it restarts
            samples.append(found.json()["active_slots"])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
    assert max(samples) <= limit


def check_nothing_is_left(shell: Place, server: Server) -> None:
    """No slots, claims, tags or leases."""

    def left() -> list[Any]:
        limit = httpx.get(f"{shell.api_url}/v2/concurrency_limits/siftline").json()
        tagged = server.ask("/flow_runs/filter", flow_runs={"tags": {"all_": [TAG]}})
        leases = [*(shell.directory / ".prefect/concurrency_leases").glob("*-*.json")]
        return [*tagged, *leases, *range(limit["active_slots"])]

    wait_until(lambda: not left(), "no slot, claim or lease is left")


# ------------------------------------------------------------------------------------------ by a worker


@pytest.fixture
def at_work(place: tuple[Place, PrefectServer]) -> Iterator[Place]:
    """The project, with a worker that polls its work pool."""
    shell, _ = place
    log = shell.directory / "worker.log"
    worker = shell.start(*("prefect", "worker", "start", "--pool", "queue", "--type", "process"), log=log)
    with running(worker):
        wait_until(lambda: "started!" in log.read_text(), "the worker polls", 300)
        yield shell


@contextmanager
def occupied(seconds: float) -> Iterator[Callable[[], None]]:
    """Another run holds the slot for some more seconds, until the given function is called."""
    from prefect import flow
    from prefect.states import Completed, Running

    @flow
    def other() -> None:
        pass

    with reached() as client:
        pool = read_pool(client, "queue")
        assert pool is not None
        run = client.create_flow_run(other, state=Running())
        lease = acquire(client, pool, run.id, 1)
        assert lease is not None
        now = datetime.now(UTC)
        claim = {"pool": pool.name, "slots": 1, "priority": "normal", "since": now, "seen": now}
        put_claim(client, run.id, Claim.model_validate({**claim, "seconds": seconds, "began": now}))

        def release() -> None:
            client.release_concurrency_slots_with_lease(lease)
            put_claim(client, run.id, None)
            client.set_flow_run_state(run.id, Completed())
            wake_next(client, pool)

        yield release


def job_file(shell: Place, name: str, **sections: Any) -> Path:
    """A job of its own, but of one name with the others, so that they have one history."""
    write_rows(shell.directory / f"data/{name}.parquet", 300, seed=len(name))
    batch = {**BATCH, "name": "shared", "source": {**BATCH["source"], "path": f"data/{name}.parquet"}}
    return write_config(
        shell.directory / f"{name}.yaml", {**batch, "output": {"path": f"results/{name}"}, **sections}
    )


def submit(shell: Place, path: Path) -> dict[str, Any]:
    finished = call_siftline(shell, "submit", path, "--work-pool", "queue", "--json")
    assert finished.status == 0, finished.err
    return finished.json()


def history(shell: Place, run: str) -> list[tuple[str, str]]:
    """The states of a run so far, and their times."""
    answer = httpx.get(f"{shell.api_url}/flow_run_states/", params={"flow_run_id": run}, timeout=120)
    return [(one["name"], one["timestamp"]) for one in answer.raise_for_status().json()]


def test_jobs_queue_without_a_process_and_are_woken_in_the_order_of_their_turns(at_work: Place) -> None:
    shell, server = at_work, Server(str(at_work.api_url))
    first = call_siftline(shell, "run", job_file(shell, "before"), "--json")
    assert first.status == 0, first.err
    idle = {process.pid for process in shell.processes()}

    def read(run: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{shell.api_url}/flow_runs/{run}", timeout=120).json()
        return found

    def ask(run: str, kind: str) -> dict[str, Any]:  # as the buttons of Prefect's UI do
        path = f"{shell.api_url}/flow_runs/{run}/set_state"
        answer: dict[str, Any] = httpx.post(path, json={"state": {"type": kind}}, timeout=120).json()
        return answer

    with inside(shell), audited(str(shell.api_url)) as samples, occupied(seconds=600) as release:
        given = submit(shell, job_file(shell, "dropped"))
        assert (given["state"], given["place"]) == ("queued", 1)
        assert given["wait_seconds"] == pytest.approx(600, abs=60)
        dropped = given["flow_run_id"]
        large = job_file(shell, "large", cluster={"workers": 2})
        refused = call_siftline(shell, "submit", large, "--work-pool", "queue")
        assert (refused.status, "and pool siftline has 1" in refused.complaint()) == (2, True)
        job_file(shell, "limited")
        batch = {**BATCH, "name": "shared", "output": {"path": "results/limited"}}
        batch["source"] = {**BATCH["source"], "path": "data/limited.parquet"}
        apply(shell, write_pipeline(shell, "limited", pool="queue", batch=batch, concurrency={"limit": 1}))
        started = call_siftline(shell, "pipelines", "run", "limited", "--fresh", "--json").json()
        limited = started["flow_run_id"]
        wait_until(lambda: TAG in read(limited)["tags"], "it claims slots", 120)
        urgent = job_file(shell, "high", resources={"priority": "high"})
        shown = call_siftline(shell, "submit", urgent, "--work-pool", "queue").out
        assert "place 1 in the queue, wait about " in shown
        high = shown.split()[4]
        waiting = [dropped, limited, high]
        wait_until(lambda: all(read(run)["state_name"] == AWAITING for run in waiting), "all queue", 120)
        wait_until(lambda: {one.pid for one in shell.processes()} <= idle, "nobody holds a process")
        assert server.deployment("limited")["global_concurrency_limit"]["active_slots"] == 0
        status = call_siftline(shell, "status", limited, "--json").json()
        assert (status["state"], status["queue_place"], status["prefect_state"]) == ("queued", 3, AWAITING)
        assert status["wait_seconds"] > 300
        assert ask(limited, "PAUSED")["status"] == "REJECT"

        ask(dropped, "CANCELLING")
        assert read(dropped)["state_name"] == "Cancelled"
        assert call_siftline(shell, "status", dropped, "--json").json()["state"] == "cancelled"
        assert call_siftline(shell, "status", limited, "--json").json()["queue_place"] == 2

        release()
        wait_until(
            lambda: all(read(run)["state_name"] == "Completed" for run in (high, limited)), "both done", 300
        )
        check_nothing_is_left(shell, server)
    assert max(samples) == 1

    histories = [history(shell, run) for run in (high, limited)]
    assert all("Late" in [name for name, _ in states] for states in histories), "the release woke it"
    last = [max(when for name, when in states if name == "Running") for states in histories]
    assert last == sorted(last), "the high one first"
    for name, run in (("high", high), ("limited", limited)):
        manifest = open_results(shell.directory / f"results/{name}").manifest
        assert (manifest.flow_run_id, manifest.rows, manifest.complete) == (run, 300, True)


# ------------------------------------------------------------------------- in processes of their own


def listed(job: Job) -> tuple[str, int | None]:
    """State and place of the one job in a checkpoint."""
    (status,) = batch_statuses(str(job.checkpoint))
    return status.state, status.queue_place


def test_the_slots_of_a_killed_run_come_back_and_a_restarted_server_loses_none(
    place: tuple[Place, PrefectServer], tmp_path: Path
) -> None:
    shell, server = place
    questions = Server(server.api_url)
    jobs = []
    for name in ("killed", "next"):
        home = tmp_path / name
        home.mkdir()
        jobs.append(Job(Shell(home, server.api_url, shell.mark), 20, 500, cluster={"workers": 1}))
    killed, following = jobs

    def slots() -> int:
        used: int = httpx.get(f"{server.api_url}/v2/concurrency_limits/siftline").json()["active_slots"]
        return used

    with audited(server.api_url):
        holder = killed.start(FREE_CHUNKS="4")
        wait_until(lambda: len(killed.committed()) >= 4, "the first has begun", 120)
        waiting = following.start()
        (run,) = wait_until(
            lambda: questions.ask("/flow_runs/filter", flow_runs={"state": {"name": {"any_": [AWAITING]}}}),
            "the second waits",
            120,
        )
        assert "1 slot of pool siftline, place 1" in run["state"]["message"]
        assert following.directory is not None
        wait_until(lambda: listed(following) == ("queued", 1), "its checkpoint says so")
        # The worker, and the process that draws the report, of the first run only.
        assert len(shell.forks()) == 2

        server.kill()
        server.start()
        assert slots() == 1

        holder.kill()
        finish(holder)
        shell.expire_leases()
        result = finish(waiting)

    assert result.status == 0, result.err
    assert "waiting for 1 slot of pool siftline: place 1" in result.err
    assert result.json()["chunks_computed"] == 20
    (dead,) = questions.ask("/flow_runs/filter", flow_runs={"tags": {"all_": [TAG]}})
    # As the automation for runs without heartbeats does.
    crashed = {"state": {"type": "CRASHED"}, "force": True}
    httpx.post(f"{server.api_url}/flow_runs/{dead['id']}/set_state", json=crashed).raise_for_status()
    killed.open_gate()
    again = killed.run()
    assert (again["chunks_reused"], again["chunks_computed"]) == (len(killed.committed()) - 16, 16)
    assert scores_digest(killed.output) == scores_digest(following.output)
    check_nothing_is_left(shell, questions)
