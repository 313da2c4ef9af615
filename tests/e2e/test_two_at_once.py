"""The same job at the same time, or again: one run works, the others find out, nothing is published twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from siftline import open_results
from siftline.jobs.status import batch_statuses
from tests.e2e.chaos import CHUNKS, Job
from tests.e2e.processes import Shell, finish
from tests.faults import wait_until
from tests.flows.batches import scores_digest


def ended(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    return [process for process in processes if process.poll() is not None]


def publications(job: Job) -> list[str]:
    return [path.name for path in (job.output / ".publications").iterdir()]


def test_of_two_runs_started_at_once_one_works_and_the_other_ends_naming_it(shell: Shell) -> None:
    job = Job(shell)
    processes = [job.start(FREE_CHUNKS="4"), job.start(FREE_CHUNKS="4")]

    (loser,) = wait_until(lambda: ended(processes), "one of them has ended", 120)
    (winner,) = [process for process in processes if process is not loser]
    assert winner.poll() is None, "the other one works"
    job.open_gate()
    refused, finished = finish(loser), finish(winner)

    assert (refused.status, finished.status) == (1, 0), (refused.err, finished.err)
    run = finished.json()["flow_run_id"]
    assert f"run {run} is working on it" in refused.complaint()
    assert refused.complaint().count("\n") == 0
    assert refused.json()["error"] == "JobBusy"
    states, tags = job.states(), job.tags()
    assert (states.pop(run), tags.pop(run)) == (("COMPLETED", "Completed"), [])
    assert list(states.values()) == [("FAILED", "Failed")]
    assert list(tags.values()) == [["siftline:already-running"]]
    assert len({one.run for one in job.begun()}) == 1, "only one of them has scored anything"
    assert len(job.begun()) == CHUNKS
    manifest = open_results(job.output).manifest
    assert (manifest.flow_run_id, manifest.replaces) == (run, None)
    assert publications(job) == [manifest.publication], "published once"


@pytest.fixture
def woken() -> Iterator[list[int]]:
    """Processes that must not stay frozen, however the test ends."""
    frozen: list[int] = []
    yield frozen
    for pid in frozen:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)


def contents(job: Job) -> dict[str, bytes]:
    """What the result and the progress of the job consist of; part files count by their receipts."""
    assert job.directory is not None
    kept = (*job.directory.glob("*.json"), *job.directory.glob("receipts/*/*"), *job.output.rglob("*.*"))
    return {str(path): path.read_bytes() for path in kept if path.is_file()}


@pytest.mark.soak
def test_a_run_that_was_frozen_and_replaced_changes_nothing_when_it_wakes_up(
    shell: Shell, woken: list[int]
) -> None:
    job = Job(shell)
    first = job.start(LEASE_SECONDS="2", FREE_CHUNKS="4")
    wait_until(lambda: len(job.committed()) >= 4, "some chunks are committed", 120)
    woken.extend([first.pid, job.begun()[-1].pid])
    for pid in woken:  # the run and one of its workers
        os.kill(pid, signal.SIGSTOP)
    committed = len(job.committed())
    assert committed < CHUNKS
    (frozen,) = job.states()
    wait_until(lambda: job.held_by is None, "its lease is over")

    second = job.run()

    assert second["state"] == "Completed"
    assert (second["chunks_reused"], second["chunks_computed"]) == (committed, CHUNKS - committed)
    before, digest = contents(job), scores_digest(job.output)
    assert first.poll() is None, "the first one is frozen still"

    job.open_gate()
    for pid in reversed(woken):
        os.kill(pid, signal.SIGCONT)

    finished = finish(first)
    shell.wait_for_nobody()
    assert finished.status == 1, finished.err
    assert finished.json()["error"] == "LeaseLost"
    assert f"run {second['flow_run_id']} has taken it over" in finished.complaint()
    after = contents(job)
    assert after.keys() == before.keys()
    # Frozen amid a commit, it ends that one: a receipt of a part file that is gone, so it counts for nothing.
    changed = [path for path in before if before[path] != after[path]]
    assert all("/receipts/" in path for path in changed)
    assert len(changed) <= 1
    assert scores_digest(job.output) == digest
    assert open_results(job.output).manifest.flow_run_id == second["flow_run_id"]
    assert job.directory is not None
    (line,) = (job.directory / "audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["run"], entry["what"], entry["epoch"]) == (frozen, "fenced", 1)
    assert entry["by"] == {"run": second["flow_run_id"], "epoch": 2}
    assert job.states() == {
        frozen: ("FAILED", "Failed"),
        second["flow_run_id"]: ("COMPLETED", "Completed"),
    }
    assert job.tags() == {frozen: ["siftline:superseded"], second["flow_run_id"]: []}
    (status,) = batch_statuses(str(job.checkpoint))
    assert (status.state, status.flow_run_id) == ("completed", second["flow_run_id"])
