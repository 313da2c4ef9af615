"""A run that is asked to stop, at any moment, ends in order within seconds, and its job can go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config
from siftline.errors import Cancelled
from siftline.jobs.record import read_job
from siftline.jobs.results import open_results
from siftline.system.signals import signals_deferred
from tests.e2e.chaos import Job
from tests.e2e.processes import Shell, finish
from tests.faults import holder, wait_until
from tests.flows.batches import scores_digest
from tests.forks import Forks, do
from tests.support import make_config, make_table, store_of, undisturbed_digest, write_files

SIGNALS = [signal.SIGINT, signal.SIGTERM]


# ------------------------------------------------------------------------------------------ the command

CHUNKS = 160


@pytest.mark.soak
def test_a_run_stopped_at_any_moment_exits_130_leaves_nobody_and_goes_on(shell: Shell) -> None:
    job, chance = Job(shell, CHUNKS, 500), random.Random(0)

    for number, asked in enumerate(SIGNALS):
        before = job.committed()
        process = job.start()
        if number % 2:  # while it plans, fits, and its workers come to life
            wait_until(lambda p=process: holds(job, p), "the run has its job", 120)
            time.sleep(chance.uniform(0, 0.5))  # not for anything: to hit any moment
        else:
            chunks = chance.uniform(0.01, 0.1) * (CHUNKS - len(before))
            wait_until(lambda p=process, n=chunks: begun(job, p) >= n, f"{chunks:.0f} chunks are begun", 120)
            time.sleep(chance.uniform(0, 0.02))

        stop(process, asked)

        check_stopped(job, process, before)
        assert read_job(directory_of(job)).outcome == "cancelled"

    assert len(job.states()) == len(SIGNALS)
    check_goes_on(job)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """End a run as a supervisor does, or as a terminal does: its workers get Ctrl-C, too."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def check_goes_on(job: Job) -> None:
    committed = job.committed()

    result = job.run()

    assert (result["chunks_reused"], result["chunks_computed"]) == (len(committed), CHUNKS - len(committed))
    assert scores_digest(job.output) == undisturbed_digest(load_config(job.config))
    assert sorted(one.chunk for one in job.begun()) == list(range(CHUNKS)), "nothing is done twice"


def directory_of(job: Job) -> Path:
    assert job.directory is not None
    return job.directory


def holds(job: Job, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, finish(process)
    return job.held_by is not None


def begun(job: Job, process: subprocess.Popen[str]) -> int:
    assert process.poll() is None, finish(process)
    return len(job.begun(job.runs))


def check_stopped(job: Job, process: subprocess.Popen[str], before: set[int]) -> None:
    finished = finish(process, 60)
    assert finished.status == 130, finished.err
    assert finished.complaint() == (
        "siftline: interrupted; run the same command again to go on: finished chunks are kept"
    )
    assert finished.json() == {
        "state": "Cancelled",
        "error": "Cancelled",
        "message": "interrupted; run the same command again to go on: finished chunks are kept",
    }
    job.shell.wait_for_nobody()
    assert job.held_by is None
    assert job.committed() == before | {one.chunk for one in job.begun(job.runs)}, "what was begun is kept"
    assert set(job.states().values()) <= {("CANCELLED", "Cancelled")}


# ------------------------------------------------------------------------------- the library, in processes


def test_a_signal_that_comes_amid_imports_is_acted_on_afterwards() -> None:
    reached = []

    def import_something() -> None:
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        import_something()

    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def work(config: BatchConfig, ready: Path) -> None:
    """Do a job, as the command does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        ready.touch()
        do(config)
    except (Cancelled, KeyboardInterrupt):
        raise SystemExit(130) from None


def outcome(config: BatchConfig) -> tuple[list[str], float]:
    manifest = open_results(config.output.path).manifest
    return [file.digest for file in (*manifest.scores, *manifest.anomaly_files)], manifest.threshold


def test_ten_times_stopped_in_process_ten_times_resumed(forks: Forks, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", make_table(3000), row_group=100)
    chance, stopped = random.Random(1), 0

    def configured(home: Path, seed: int = 0) -> BatchConfig:
        key, chunking = {"key": ["id"]}, {"rows": 100}
        return make_config(home, data, source=key, chunking=chunking, detector={"seed": seed})

    do(configured(tmp_path, seed=1))

    def prepare(name: str) -> tuple[BatchConfig, int]:
        home = tmp_path / name
        shutil.copytree(tmp_path / "out", home / "out")
        config = configured(home)
        pid = forks.start(work, config, home / "ready")
        wait_until((home / "ready").exists, "the process has begun")
        return config, pid

    config, pid = prepare("undisturbed")
    wait_until(lambda: ended(pid), "it is done")
    needed = cpu_seconds(pid)
    assert forks.wait(pid) == 0
    undisturbed = outcome(config)

    for number in range(10):
        config, pid = prepare(str(number))
        share = chance.uniform(0, 1)
        while cpu_seconds(pid) < share * needed and not ended(pid):
            time.sleep(0.001)
        os.kill(pid, chance.choice(SIGNALS))

        status = forks.wait(pid)

        assert status in (0, 130)
        stopped += status == 130
        check_resumable(config, undisturbed)
        shutil.rmtree(tmp_path / str(number))
    assert stopped >= 5


def ended(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def cpu_seconds(pid: int) -> float:
    """How far a process is, however busy the machine is with others."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def check_resumable(config: BatchConfig, undisturbed: tuple[list[str], float]) -> None:
    directory = next(Path(config.checkpoint.path).glob("jobs/*"), None)
    kept = len(store_of(config).files())
    if directory is not None:
        assert holder(directory) is None
        assert len(list(directory.glob("parts-*/chunk-*.parquet"))) == kept, "what was scored is committed"

    done = do(config)

    assert done.previous is None, "the lease was released"
    assert done.computed == len(done.plan.chunks) - kept
    assert outcome(config) == undisturbed
    keys = open_results(config.output.path).scores.to_table()["id"].to_pylist()
    assert keys == [f"r{row:06d}" for row in range(3000)]
