"""A run is watched to its end: by the command and from Python, without its event socket, over its death."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from siftline.flows.control import run_states
from siftline.monitoring import BatchStatus, batch_status
from tests.e2e.chaos import Job
from tests.e2e.processes import Shell, finish
from tests.e2e.proxies import proxied
from tests.faults import wait_until
from tests.flows.commands import call_siftline

pytestmark = pytest.mark.soak

STAGES = ["plan", "fit", "detect", "combine", "validate", "publish", "notify"]
CHUNKS, FREE = 12, 4
# As a program of a user does.
WATCH = """
import asyncio, sys
from siftline.monitoring import watch


async def show():
    async for status in watch(*sys.argv[1:]):
        print(status.model_dump_json(), flush=True)

asyncio.run(show())
"""


@pytest.fixture
def job(shell: Shell, api_url: str) -> Iterator[Job]:
    """A job of one process, whose chunks after the first ones wait at a gate; and its server in this one."""
    name = f"watched-{uuid4().hex[:8]}"
    with temporary_settings({PREFECT_API_URL: api_url}):
        yield Job(shell, CHUNKS, 100, name=name, cluster={"kind": "serial"})


def follow(job: Job, url: str) -> subprocess.Popen[str]:
    """Start ``siftline watch`` on the job's name."""
    shell = Shell(job.shell.directory, url, job.shell.mark)
    return shell.start("siftline", "watch", job.values["name"], "--checkpoint", job.checkpoint, "--json")


def at_the_gate(job: Job) -> BatchStatus:
    """Return the status of the job once its free chunks are scored, and its record says so."""

    def status() -> BatchStatus | None:
        directory = job.directory
        if directory is None or not (directory / "live.json").exists():
            return None
        found = batch_status(directory.name, job.checkpoint)
        return found if found.chunks.done == FREE else None

    return wait_until(status, "some chunks are scored", 120)


def check_progress(seen: list[BatchStatus]) -> None:
    """Nothing is lost: the chunks never become fewer, and the last status alone is final."""
    done = [one.chunks.done for one in seen]
    assert done == sorted(done)
    assert [one.final for one in seen] == [False] * (len(seen) - 1) + [True]
    assert [one.stage for one in seen[-1].stages] == STAGES
    assert (seen[-1].state, seen[-1].chunks.done) == ("completed", CHUNKS)
    # The server learns of the end a moment after the checkpoint has it.
    assert seen[-1].prefect_state in ("Running", "Completed")


def test_a_run_is_seen_from_its_start_to_its_end_with_its_event_socket_cut_in_between(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = job.start(FREE_CHUNKS=str(FREE))
    wait_until(lambda: list(job.checkpoint.glob("starting/*.json")), "it says that it starts")
    with proxied(str(job.shell.api_url)) as (url, proxy):
        watching, undisturbed = follow(job, url), follow(job, str(job.shell.api_url))
        found = at_the_gate(job)
        assert (found.state, found.stage, found.rows.done) == ("running", "detect", FREE * 100)
        assert (len(found.workers), found.prefect_state) == (1, "Running")
        assert found.flow_run_id is not None
        with temporary_settings({PREFECT_API_URL: url}), monkeypatch.context() as patch:
            patch.setattr(run_states, "_own_checkpoint", lambda *given: [])
            run = str(found.flow_run_id)
            alone = wait_until(lambda: _with_chunks(run), "its events say the same", 60)
        assert (alone.state, alone.job_id, alone.stage) == ("running", found.job_id, "detect")

        wait_until(lambda: proxy.sockets, "it listens to events")
        proxy.cut()
        wait_until(lambda: proxy.refused, "it tries to listen again")
        job.open_gate()
        ends = [finish(one, 120) for one in (watching, undisturbed)]
    assert finish(process).status == 0

    for end in ends:
        assert (end.status, end.err) == (0, "")
        check_progress([BatchStatus.model_validate(json.loads(line)) for line in end.out.splitlines()])


def _with_chunks(run: str) -> BatchStatus | None:
    found = batch_status(run, "nowhere")
    return found if found.chunks.done == FREE else None


def test_a_killed_run_is_interrupted_since_its_last_sign_of_life_and_goes_on(job: Job) -> None:
    process = job.start(FREE_CHUNKS=str(FREE))
    before = at_the_gate(job)
    assert before.job_id is not None
    watching = job.shell.start(sys.executable, "-c", WATCH, before.job_id, job.checkpoint)
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["state"] == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = datetime.now(UTC)

    *_, last = finish(watching, 60).out.splitlines()
    shown = call_siftline(job.shell, "watch", before.job_id[:9], "--checkpoint", job.checkpoint)

    found = BatchStatus.model_validate(json.loads(last))
    assert (found.state, found.final, found.flow_run_id) == ("interrupted", True, before.flow_run_id)
    assert found.since is not None
    assert before.since is not None
    assert before.since <= found.since <= killed
    assert (found.chunks.done, found.workers) == (len(job.committed()), ())
    assert found.message == f"process {process.pid} on {socket.gethostname()} ended without a word"
    assert shown.status == 1
    since = f"{found.since.astimezone():%Y-%m-%d %H:%M:%S}"
    assert f"{job.values['name']}  interrupted since {since}\n" in shown.out

    job.open_gate()
    result = job.run()
    assert result["chunks_reused"] == FREE
    again = batch_status(before.job_id, job.checkpoint)
    assert (again.state, again.flow_run_id, again.chunks.reused) == ("completed", result["flow_run_id"], FREE)
