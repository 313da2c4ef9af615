"""Jobs on workers that come and go, run short of memory, or take too long: the results are the same."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import psutil
import pytest

from siftline.config.clusters import LocalCluster, WorkerRange
from siftline.engine import (
    ENVIRONMENT,
    Adapting,
    DaskExecutor,
    Executor,
    Session,
    open_executor,
    prepare_executor,
)
from siftline.engine.stragglers import Pace
from siftline.progress import Incident, Report, listening
from siftline.stages.detect import detect_chunks
from tests.e2e.processes import Shell
from tests.faults import Fault, FaultyExecutor, Script, nothing_left_behind, wait_until
from tests.support import Job, make_config, make_table, run_job, store_of, write_files

pytestmark = pytest.mark.e2e

T = TypeVar("T")
R = TypeVar("R")

CHUNKS, CHUNK_ROWS = 40, 2_000
MEMORY = 600 << 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapting")


@pytest.fixture(scope="module")
def data(home: Path) -> Path:
    return write_files(home / "data", make_table(CHUNKS * CHUNK_ROWS), row_group=CHUNK_ROWS)


def configuration(home: Path, data: Path, **chunking: Any) -> Any:
    chunking = {"rows": CHUNK_ROWS, **chunking}
    return make_config(home, data, source={"key": ["id"]}, chunking=chunking, retries={"delay_seconds": 0.05})


@pytest.fixture(scope="module")
def undisturbed(home: Path, data: Path) -> Job:
    return run_job(configuration(home / "undisturbed", data))


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Executor]:
    with open_executor(LocalCluster(workers=2, memory_limit=str(MEMORY))) as executor:
        yield executor


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have samples, decisions and second starts come at once."""
    monkeypatch.setattr("siftline.stages.detect.Adapting", partial(Adapting, seconds=0.05))
    monkeypatch.setattr("siftline.engine.adaptation.COOLDOWN_SECONDS", 0.05)
    monkeypatch.setattr("siftline.engine.dask_session.Pace", partial(Pace, least_seconds=0.5))


def published(job: Job) -> list[str]:
    """Return the digests of everything published."""
    return [file.digest for file in (*job.manifest.scores, *job.manifest.anomaly_files)]


@contextmanager
def incidents(react: Callable[[Incident], None] = lambda incident: None) -> Iterator[list[Incident]]:
    """Gather the incidents, and react to each at once."""
    found: list[Incident] = []

    def take(report: Report) -> None:
        if isinstance(report, Incident):
            found.append(report)
            react(report)

    with listening(take):
        yield found


def texts(found: list[Incident], kind: str = "adapted") -> list[str]:
    return [one.text.partition(":")[0] for one in found if one.kind == kind]


def parts(job: Job) -> set[str]:
    return {path.name for path in job.plan.parts.iterdir()}


def named(job: Job) -> set[str]:
    """Return the part files that receipts name."""
    receipts = list(job.receipts.in_order)
    return {one.part.name for one in receipts} | {
        one.candidates.file.name for one in receipts if one.candidates
    }


# Workers


@pytest.mark.usefixtures("quick")
def test_workers_come_and_go_during_a_run_without_losing_a_chunk_or_changing_a_bit(
    tmp_path: Path, data: Path, undisturbed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.dask_session.Pace", partial(Pace, least_seconds=1e9))
    faults: dict[str, list[Fault]] = {f"chunk {number}": ["gate"] for number in range(CHUNKS - 1)}
    # The last one goes on once the others have gone.
    script = Script.write(tmp_path / "script", {**faults, f"chunk {CHUNKS - 1}": ["hang"]})
    environments: dict[str, dict[str, str]] = {}
    asked: list[int] = []

    def permit(workers: int) -> int:
        asked.append(workers)
        return workers

    def react(incident: Incident) -> None:
        if incident.text.startswith("scaled down to 1 worker:"):
            (script.directory / "never").touch()

    cluster = LocalCluster(workers=WorkerRange(minimum=1, maximum=3), memory_limit=str(MEMORY))
    prepare_executor(cluster)  # the server that workers are forked from stays
    with nothing_left_behind(), open_executor(cluster, permit=permit) as executor, incidents(react) as found:
        client = cast(DaskExecutor, executor).client

        def open_gate() -> None:
            wait_until(lambda: len(client.nthreads()) == 3, "three workers are up")
            environments.update(client.run(lambda: dict(os.environ)))
            script.open_gate()

        opening = threading.Thread(target=open_gate)
        opening.start()
        job = run_job(configuration(tmp_path, data), FaultyExecutor(executor, script))
        opening.join()
        assert len(client.nthreads()) == 1

    assert published(job) == published(undisturbed)
    assert set(script.executions().values()) == {1}
    assert texts(found)[:2] == ["scaled up to 2 workers", "scaled up to 3 workers"]
    assert texts(found)[-1] == "scaled down to 1 worker"
    assert {one.kind for one in found} == {"adapted"}
    assert (asked[:2], asked[-1]) == ([2, 3], 1)
    for environment in environments.values():
        assert {name: environment[name] for name in ENVIRONMENT} == ENVIRONMENT


# Memory


@dataclass(frozen=True)
class Hungry(Generic[T, R]):
    """A function that fills its worker with whole batches until a gate is opened. Picklable."""

    function: Callable[[T], R]
    script: Script
    limit: int

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, task: T) -> R:
        self.script.begin(str(task).partition(" (")[0])
        if getattr(task, "batch_divisor", 0) == 1 and not (self.script.directory / "gate").exists():
            missing = int(0.87 * self.limit) - psutil.Process().memory_info().rss
            held = np.ones(max(missing, 1), np.uint8)
            self.script.wait_at_gate()
            del held
        return self.function(task)


class HungryExecutor(FaultyExecutor):
    """An executor whose work needs much memory."""

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        return self._executor.session(Hungry(function, self._script, MEMORY), bundle, timeout_seconds)


@pytest.mark.usefixtures("quick")
def test_a_job_that_is_hungry_for_memory_finishes_by_adapting_with_the_same_bits(
    two_workers: Executor, tmp_path: Path, data: Path, undisturbed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.adaptation.LOW_MEMORY", 0.0)  # the measures stay
    monkeypatch.setattr("siftline.engine.dask_session.Pace", partial(Pace, least_seconds=1e9))
    script = Script.write(tmp_path / "script", {})

    def react(incident: Incident) -> None:
        if incident.text.startswith("batches of 1/2"):
            script.open_gate()

    with incidents(react) as found:
        job = run_job(configuration(tmp_path, data), HungryExecutor(two_workers, script))

    assert published(job) == published(undisturbed)
    assert {name: count for name, count in script.executions().items() if count > 1} == {}
    windows = [f"{window} chunk{'s' if window > 1 else ''} in flight for each slot" for window in (4, 2, 1)]
    assert texts(found)[:4] == [*windows, "batches of 1/2 of the usual size"]
    assert {one.kind for one in found} == {"adapted"}
    assert "the fullest worker uses 8" in found[0].text


# Stragglers


@pytest.mark.usefixtures("quick")
def test_a_straggler_is_done_by_an_idle_worker_and_committed_once(
    two_workers: Executor, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    script = Script.write(tmp_path / "script", {"chunk 5": ["hang"]})
    before = cast(DaskExecutor, two_workers).client.run(os.getpid)

    with incidents() as found:
        job = run_job(configuration(tmp_path, data), FaultyExecutor(two_workers, script))

    # The first start never came to its end, and could not have.
    assert (script.executions()["chunk 5"], script.journal().count("end chunk 5")) == (2, 1)
    assert not (script.directory / "never").exists()
    assert published(job) == published(undisturbed)
    assert [receipt.chunk for receipt in job.receipts.in_order] == list(range(CHUNKS))
    repeated = {one.chunk: one.text for one in found if one.kind == "repeated"}
    assert repeated[5].startswith("chunk 5 (rows 10000-11999): takes ")
    assert repeated[5].endswith(" s, far longer than its peers; another worker starts it, too")
    assert not [one for one in found if one.kind in ("retried", "worker lost", "chunk failed")]
    assert parts(job) == named(job)
    assert len([process for process in before.values() if psutil.pid_exists(process)]) == 1


@pytest.mark.usefixtures("quick")
def test_a_second_start_that_fails_does_not_fail_the_chunk(
    two_workers: Executor, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    script = Script.write(tmp_path / "script", {"chunk 5": ["hang", "source", "again"]})

    def let_it_go_on() -> None:
        wait_until(lambda: script.executions()["chunk 5"] == 2, "the second start has begun")
        (script.directory / "never").touch()

    going_on = threading.Thread(target=let_it_go_on)
    going_on.start()
    with incidents() as found:
        job = run_job(configuration(tmp_path, data), FaultyExecutor(two_workers, script))
    going_on.join()

    assert published(job) == published(undisturbed)
    assert script.executions()["chunk 5"] == 2
    assert len(texts(found, "repeated")) >= 1
    assert job.receipts.failed == ()
    assert parts(job) == named(job)


@pytest.mark.usefixtures("quick")
def test_two_starts_without_an_end_are_a_timeout_and_another_attempt(
    two_workers: Executor, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    script = Script.write(tmp_path / "script", {"chunk 5": ["hang", "hang"]})
    config = configuration(tmp_path, data, timeout_seconds=3)

    with incidents() as found:
        job = run_job(config, FaultyExecutor(two_workers, script))

    assert published(job) == published(undisturbed)
    assert script.executions()["chunk 5"] >= 3
    assert [one.text.partition("; attempt")[0] for one in found if one.kind == "retried"] == [
        "chunk 5 (rows 10000-11999): no result after 3 s; the worker was restarted"
    ]
    assert parts(job) == named(job)
    # What is left behind anyway, is removed by the next run.
    (job.plan.parts / "chunk-0000005-0123abcd.parquet").touch()
    detect_chunks(job.plan, job.detector, two_workers, store_of(config))
    assert parts(job) == named(job)


# Release


ELASTIC = """
import time
from siftline.config.clusters import LocalCluster, WorkerRange
from siftline.engine import open_executor

if __name__ == "__main__":
    cluster = LocalCluster(workers=WorkerRange(minimum=1, maximum=3), memory_limit="600MiB")
    with open_executor(cluster) as executor:
        executor.scale(3)
        executor.client.wait_for_workers(3)
        print("ready", flush=True)
        with executor.session(time.sleep) as session:
            session.submit((3600, 3600, 3600))
            session.wait(3600)
"""


def test_workers_that_came_later_go_too_when_their_job_is_killed(tmp_path: Path) -> None:
    (tmp_path / "elastic.py").write_text(ELASTIC)
    shell = Shell(tmp_path)
    process = shell.start(sys.executable, tmp_path / "elastic.py")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(shell.processes()) > 3
    finally:
        process.kill()
        process.communicate()
    shell.wait_for_nobody()
