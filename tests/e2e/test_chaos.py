"""Workers and runs are killed at random moments; what is published is what an undisturbed run publishes.

`chaos.py` tells who is hit when, and how to play many more rounds.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from siftline import load_config, open_results
from siftline.storage.files import file_digest
from tests.e2e.chaos import AT_A_WORKER, CHUNK_ROWS, CHUNKS, WORKERS, Job, Round, plan_round
from tests.e2e.processes import Shell
from tests.faults import wait_until
from tests.flows.batches import part_files, scores_digest
from tests.support import undisturbed_job

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
# Its rounds kill two workers of a run, two runs in a row, and a run at its start, amid and at its end.
SEED = os.environ.get("CHAOS_SEED", "1724")
ROWS = CHUNKS * CHUNK_ROWS
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run publishes that nothing happens to."""
    job = Job(Shell(tmp_path_factory.mktemp("undisturbed")))
    with undisturbed_job(load_config(job.config)) as done:
        return published(Path(done.plan.config.output.path))


def published(output: Path) -> dict[str, Any]:
    manifest = open_results(output).manifest
    files = (*manifest.scores, *manifest.anomaly_files, *manifest.failed_files)
    assert all(file_digest(output / file.name) == file.digest for file in files)
    return {
        "scores": scores_digest(output),
        "files": [file.digest for file in files],
        "threshold": manifest.threshold,
        "anomalies": manifest.anomaly_count,
        "complete": manifest.complete,
    }


@pytest.mark.parametrize(
    "number",
    [pytest.param(one, marks=pytest.mark.soak, id=f"round-{one}") for one in range(ROUNDS)],
)
def test_whoever_is_killed_the_job_ends_as_if_nothing_had_happened(
    shell: Shell, undisturbed: dict[str, Any], number: int
) -> None:
    chance = random.Random(f"{SEED}/{number}")
    game = Round(Job(shell), chance)
    runs = plan_round(chance, flow=number > 0)

    result = game.play(runs)
    shell.wait_for_nobody()

    job = game.job
    assert result["state"] in ("Completed", "AlreadyPublished")
    assert published(job.output) == undisturbed
    check_nothing_twice(game, result)
    check_every_row_once(job)
    assert job.held_by is None
    check_the_server(game, result)


def check_nothing_twice(game: Round, result: dict[str, Any]) -> None:
    """What was committed is not done again; of what is lost, no more is lost than was in flight."""
    job, lost = game.job, game.lost()
    assert len(job.begun()) <= CHUNKS + len(lost), (runs_told(game), lost)
    assert result["chunks_reused"] + result["chunks_computed"] == CHUNKS
    for kill in game.kills:
        begun = len(job.begun(kill.run))
        if kill.flow:  # its workers may end what they have, and get nothing more
            assert begun - kill.begun <= WORKERS * AT_A_WORKER
    (receipts,) = job.checkpoint.glob("jobs/*/receipts/*")
    assert {path.stem for path in receipts.iterdir()} == {f"{chunk:07d}" for chunk in range(CHUNKS)}
    assert len(part_files(job.checkpoint)) == CHUNKS, "what came to nothing is tidied away"


def check_every_row_once(job: Job) -> None:
    results = open_results(job.output)
    keys = results.scores.to_table(columns=["id"])["id"].to_pylist()
    assert keys == list(range(1000, 1000 + ROWS))
    assert results.manifest.rows == len(keys) + results.manifest.rows_failed
    assert [path.name for path in (job.output / ".publications").iterdir()] == [results.manifest.publication]
    assert not list((job.output / ".staged").iterdir())


def check_the_server(game: Round, result: dict[str, Any]) -> None:
    """Every run has ended, but those that were killed while they had nothing to do with the job."""
    job, run = game.job, result["flow_run_id"]

    def unended() -> list[str]:
        states = job.states()
        assert run is None or states[run] == ("COMPLETED", "Completed")
        return [name for kind, name in states.values() if kind not in TERMINAL]

    label = ["siftline:already-published"] if result["state"] == "AlreadyPublished" else []
    assert run is None or job.tags()[run] == label
    unheld = sum(kill.flow and not kill.held for kill in game.kills)
    wait_until(lambda: len(unended()) <= unheld, f"the server knows the end of all runs but {unheld}")


def runs_told(game: Round) -> list[tuple[int, bool, int]]:
    return [(kill.run, kill.flow, len(kill.committed)) for kill in game.kills]
