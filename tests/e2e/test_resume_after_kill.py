"""A run is killed in the middle of detection: the same command again goes on where it was."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from siftline import load_config, open_results
from tests.e2e.processes import Shell, finish, write_config
from tests.faults import wait_until
from tests.flows.batches import configuration, part_files, receipt_files, scores_digest
from tests.support import undisturbed_digest

# More than two workers are given ahead, which they finish when the run is asked to stop.
CHUNKS = 80
ROWS = 200_000


@dataclass
class Job:
    """A job that takes long enough to be interrupted: many trees."""

    shell: Shell
    config: Path
    checkpoint: Path
    output: Path

    @classmethod
    def of(cls, shell: Shell, **sections: Any) -> Job:
        values = configuration(
            shell.directory,
            rows=ROWS,
            chunk_rows=ROWS // CHUNKS,
            detector={"params": {"n_estimators": 100}, "sample_rows": 5000},
            threshold={"contamination": 0.0001},
            **{"cluster": {"kind": "local", "workers": 2}, **sections},
        )
        config = write_config(shell.directory / "job.yaml", values)
        return cls(shell, config, Path(values["checkpoint"]["path"]), Path(values["output"]["path"]))

    def start(self) -> subprocess.Popen[str]:
        return self.shell.start("siftline", "run", self.config, "--json")

    def start_and_wait(self, receipts: int = 4) -> subprocess.Popen[str]:
        """Start it, and wait until some receipts are committed."""
        process = self.start()

        def some() -> bool:
            assert process.poll() is None, finish(process)
            return len(receipt_files(self.checkpoint)) >= receipts

        wait_until(some, f"{receipts} receipts are committed", 120)
        return process

    def run(self) -> dict[str, Any]:
        finished = finish(self.start())
        assert finished.status == 0, finished.err
        return finished.json()


def modified(checkpoint: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in part_files(checkpoint)}


def last_states(shell: Shell, number: int) -> list[tuple[str, str]]:
    """Type and name of the states of the last runs on the server, the newest first; not of planned ones."""
    begun = {"state": {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"]}}}
    asked = {"flow_runs": begun, "sort": "START_TIME_DESC", "limit": number}
    answer = httpx.post(f"{shell.api_url}/flow_runs/filter", json=asked, timeout=120)
    return [(run["state"]["type"], run["state"]["name"]) for run in answer.raise_for_status().json()]


def check_resumed(job: Job, committed: int) -> None:
    """Run the job again: it must reuse all that was committed, and publish what it would have published."""
    kept = len(receipt_files(job.checkpoint))
    assert committed <= kept < CHUNKS
    assert not (job.output / "manifest.json").exists()
    before = modified(job.checkpoint)

    result = job.run()

    # The last receipt may have been torn by the end of its writer.
    assert kept - 1 <= result["chunks_reused"] <= kept
    assert result["chunks_reused"] >= committed
    assert result["chunks_computed"] == CHUNKS - result["chunks_reused"]
    after = modified(job.checkpoint)
    # What no receipt names came to nothing, and is removed.
    untouched = [name for name in before if after.get(name) == before[name]]
    assert len(untouched) == result["chunks_reused"], "a reused chunk's part file is not written again"
    assert len(after) == CHUNKS
    assert scores_digest(job.output) == undisturbed_digest(load_config(job.config))
    assert open_results(job.output).manifest.rows == ROWS


def test_a_run_goes_on_after_its_process_was_killed(shell: Shell) -> None:
    job = Job.of(shell)
    process = job.start_and_wait()
    committed = len(receipt_files(job.checkpoint))
    assert len(shell.dask_workers()) >= 2

    process.kill()
    assert finish(process).status == -signal.SIGKILL
    shell.wait_for_nobody()
    assert last_states(shell, 1) == [("RUNNING", "Running")], "it could not say anything any more"

    check_resumed(job, committed)
    assert last_states(shell, 2) == [("COMPLETED", "Completed"), ("CRASHED", "Crashed")]
