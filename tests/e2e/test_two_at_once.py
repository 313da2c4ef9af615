"""Two runs of one job, as processes: one works, and nothing is published twice, whoever freezes when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.recovery import job_statuses
from siftline import open_results
from tests.e2e.processes import Shell, finish, write_config
from tests.faults import wait_until
from tests.flows.batches import configuration, receipt_files

CHUNKS = 40
LEASE_SECONDS = 2.0
# The command, with a lease that a test can outwait: users cannot set it.
IMPATIENT = f"""
import siftline.lease
siftline.lease.Lease.__init__.__defaults__ = ({LEASE_SECONDS},)
from siftline.cli import main
main()
"""


class Job:
    """A job of many small chunks, scored in the run's own process."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        detector = {"params": {"n_estimators": 400}}
        self.values = configuration(shell.directory, 40_000, 1000, detector=detector)
        self.config = write_config(shell.directory / "job.yaml", self.values)
        self.checkpoint = Path(self.values["checkpoint"]["path"])
        self.output = Path(self.values["output"]["path"])

    def start(self) -> subprocess.Popen[str]:
        return self.shell.start(sys.executable, "-c", IMPATIENT, "run", self.config, "--json")

    def directory(self) -> Path:
        (directory,) = self.checkpoint.glob("jobs/*")
        return directory

    def wait_for_receipts(self, number: int) -> None:
        wait_until(lambda: len(receipt_files(self.checkpoint)) >= number, f"{number} receipts", 120)

    def content(self) -> dict[str, bytes]:
        """Every file of the job and its output, but those that say who works on it."""
        files = [*self.directory().rglob("*"), *self.output.rglob("*")]
        return {
            str(path): path.read_bytes()
            for path in files
            if path.is_file() and not path.name.startswith(("lease-", "audit"))
        }

    def state(self, run: str) -> str:
        answer = httpx.get(f"{self.shell.api_url}/flow_runs/{run}", timeout=30)
        return str(answer.raise_for_status().json()["state_name"])

    def runs(self) -> dict[str, str]:
        """The states of this job's runs on the server, by run."""
        answer = httpx.post(
            f"{self.shell.api_url}/flow_runs/filter",
            json={"sort": "START_TIME_DESC", "limit": 20},
            timeout=30,
        )
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        own = str(self.config.parent)
        return {run["id"]: run["state_name"] for run in found if own in json.dumps(run["parameters"])}


@pytest.fixture
def job(shell: Shell) -> Job:
    return Job(shell)


def test_of_two_runs_started_at_once_one_works_and_the_other_ends_naming_it(job: Job) -> None:
    ended = [finish(process) for process in [job.start(), job.start()]]

    winner, loser = sorted(ended, key=lambda one: one.status)
    assert (winner.status, loser.status) == (0, 1), [one.err for one in ended]
    result = winner.json()
    assert (result["state"], result["chunks_computed"], result["chunks_reused"]) == ("Completed", CHUNKS, 0)
    assert f"run {result['flow_run_id']} is working on it" in loser.complaint()
    assert "\n" not in loser.complaint()
    assert sorted(job.runs().values()) == ["AlreadyRunning", "Completed"]
    assert len(list(job.output.glob("scores/*"))) == 1, "it is published once"
    assert open_results(job.output).manifest.flow_run_id == result["flow_run_id"]


def test_a_run_that_was_frozen_and_replaced_changes_nothing_when_it_wakes_up(job: Job) -> None:
    frozen = job.start()
    job.wait_for_receipts(3)
    frozen.send_signal(signal.SIGSTOP)
    (first,) = job.runs()

    def replaced() -> dict[str, Any] | None:
        ended = finish(job.start())
        return ended.json() if ended.status == 0 else None

    result = wait_until(replaced, "the lease of the frozen run is over, and the next run is done", 120)
    assert (result["state"], result["rows"]) == ("Completed", 40_000)
    assert result["chunks_reused"] >= 3
    before = job.content()

    frozen.send_signal(signal.SIGCONT)
    woken = finish(frozen)

    assert woken.status == 1
    assert f"run {result['flow_run_id']} has taken it over" in woken.complaint()
    after = job.content()
    assert {path: after.get(path) for path in before} == before
    # The chunk that it was at: a part file that no receipt names.
    late = [Path(path) for path in after if path not in before]
    assert all(path.parent.name.startswith("parts-") for path in late)
    receipts = b"".join(path.read_bytes() for path in receipt_files(job.checkpoint))
    assert not any(path.name.encode() in receipts for path in late)
    assert job.state(first) == "Superseded"
    (line,) = (job.directory() / "audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["what"], entry["run"], entry["by"]["run"]) == ("fenced", first, result["flow_run_id"])
    (status,) = job_statuses(str(job.checkpoint))
    assert (status.state, status.run) == ("published", result["flow_run_id"])
