"""The matrix of faults: whatever happens to a chunk or its worker, nothing is lost and nothing done in vain.

Every fault is scripted, and every invocation counted by whoever is invoked (`tests.faults.Script`), so that
the numbers are those of the work itself, not of what somebody says about it.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.config.batch import BatchConfig, RetriesConfig
from siftline.config.clusters import LocalCluster, SerialCluster
from siftline.engine import DaskExecutor, Executor, open_executor, prepare_executor, run_with_retries
from siftline.engine.stragglers import Pace
from siftline.errors import (
    ChunkTimeout,
    OutOfMemory,
    PartDamaged,
    RowError,
    SiftlineError,
    SourceError,
    StorageError,
    StorageUnavailable,
)
from siftline.jobs.results import open_results
from siftline.progress import Incident, Progress, listening
from siftline.stages.plan import plan_batch
from tests.faults import FILLER, Fault, FaultyExecutor, Script, answers, small_disk, value_of, wait_until
from tests.support import Job, make_config, make_table, run_job, write_files

pytestmark = pytest.mark.e2e

CHUNKS, CHUNK_ROWS = 40, 50
ROWS = CHUNKS * CHUNK_ROWS
LABELS = f"labels of chunks 0-{CHUNKS - 1}"
WORKERS = 2
# Dask gives a worker of one thread one task to work on, and one ahead.
GIVEN = 2


# What everything is done with


@pytest.fixture(scope="module")
def dask_executor() -> Iterator[Executor]:
    """Two workers that have little memory, and come back when they are killed."""
    cluster = LocalCluster(workers=WORKERS, memory_limit="600MiB")
    prepare_executor(cluster)
    with open_executor(cluster) as executor:
        yield executor


def client_of(executor: Executor) -> Any:
    """Return Dask's own client."""
    return cast(DaskExecutor, executor).client


@pytest.fixture
def dask(dask_executor: Executor) -> Executor:
    """The workers, all of them up again."""
    client = client_of(dask_executor)
    wait_until(lambda: len(client.nthreads()) == WORKERS, "all workers are up again")
    return dask_executor


@pytest.fixture(scope="module")
def forked() -> Iterator[Executor]:
    """A process that has little memory, and is replaced when it is killed."""
    with open_executor(LocalCluster(memory_limit="600MiB"), forked=True) as executor:
        yield executor


@pytest.fixture(params=["forked", "dask"])
def workers(request: pytest.FixtureRequest) -> Executor:
    """Processes other than this one."""
    executor: Executor = request.getfixturevalue(request.param)
    return executor


@pytest.fixture(params=["serial", "forked", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param != "serial":
        yield request.getfixturevalue(request.param)
        return
    with open_executor(SerialCluster(kind="serial")) as serial:
        yield serial


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


def configuration(home: Path, data: Path, chunk_rows: int = CHUNK_ROWS, **sections: Any) -> BatchConfig:
    sections["source"] = {"key": ["id"]}
    sections["chunking"] = {"rows": chunk_rows, **sections.get("chunking", {})}
    sections["retries"] = {"delay_seconds": 0.05, **sections.get("retries", {})}
    return make_config(home, data, **sections)


@pytest.fixture(scope="module")
def data(home: Path) -> Path:
    return write_files(home / "data", make_table(ROWS))


@pytest.fixture(scope="module")
def undisturbed(home: Path, data: Path) -> Job:
    return run_job(configuration(home / "undisturbed", data))


@pytest.fixture(scope="module")
def big_data(home: Path) -> Path:
    """Of chunks that are worth being halved: 4 of 4,000 rows."""
    return write_files(home / "big", make_table(16_000), row_group=2_000)


@pytest.fixture(scope="module")
def big_undisturbed(home: Path, big_data: Path) -> Job:
    return run_job(configuration(home / "big-undisturbed", big_data, chunk_rows=4_000))


@dataclass
class Told:
    """What a run told of itself."""

    reports: list[Progress | Incident] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(one.kind for one in self.reports if isinstance(one, Incident))

    def texts(self, kind: str) -> list[str]:
        return [one.text for one in self.reports if isinstance(one, Incident) and one.kind == kind]


@dataclass
class Run:
    """A run whose work had faults: what it came to, what was executed, and what it told."""

    job: Job | None
    error: BaseException | None
    script: Script
    told: Told

    @property
    def done(self) -> Job:
        if self.error is not None:
            raise self.error
        assert self.job is not None
        return self.job

    def failed(self, kind: type[BaseException]) -> str:
        """Check that the run failed with this class of error, and return what it says."""
        assert type(self.error) is kind, self.error
        return str(self.error)

    @property
    def executions(self) -> dict[int, int]:
        """How often every chunk was executed."""
        counts = self.script.executions()
        return {int(name.split()[1]): count for name, count in counts.items() if name.startswith("chunk ")}

    @property
    def repeated(self) -> dict[int, int]:
        """The chunks that were executed more than once."""
        return {chunk: count for chunk, count in self.executions.items() if count > 1}


Runner = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run a job whose work has the faults of a script, and check the accounts of what it published."""
    numbers = iter(range(100))

    def run_with(
        executor: Executor,
        config: BatchConfig,
        faults: Mapping[int | str, Sequence[Fault]] | None = None,
    ) -> Run:
        named = {
            f"chunk {task}" if isinstance(task, int) else task: list(one)
            for task, one in (faults or {}).items()
        }
        script = Script.write(tmp_path / f"script-{next(numbers)}", named)
        told, job, error = Told(), None, None
        with listening(told.reports.append):
            try:
                job = run_job(config, FaultyExecutor(executor, script))
            except (SiftlineError, ArithmeticError) as caught:
                error = caught
        if job is not None:
            assert_accounts(job)
        return Run(job, error, script, told)

    return run_with


def assert_accounts(job: Job) -> None:
    """Rows in are rows scored and rows set aside, each of them once."""
    result = open_results(job.plan.config.output.path)
    keys = result.scores.to_table()["id"].to_pylist()
    aside = [key for file in job.manifest.failed_files for key in failed_rows(job, file.name)]
    lost = [row for chunk in job.manifest.chunks_failed for row in range(chunk.rows)]
    assert len(set(keys) | set(aside)) == len(keys) + len(aside)
    assert len(keys) + len(aside) + len(lost) == job.plan.rows
    assert len(aside) + len(lost) == job.manifest.rows_failed


def failed_rows(job: Job, name: str) -> list[str]:
    keys: list[str] = pq.read_table(Path(job.plan.config.output.path) / name)["id"].to_pylist()
    return keys


def published(job: Job) -> list[str]:
    """The digests of everything that was published."""
    files = (*job.manifest.scores, *job.manifest.anomaly_files, *job.manifest.failed_files)
    return [file.digest for file in files]


def scores_by_key(job: Job) -> dict[str, float]:
    return dict(zip(job.table["id"].to_pylist(), job.scores.tolist(), strict=True))


def assert_scored_but(job: Job, undisturbed: Job, chunks: set[int]) -> None:
    """Check that all but some chunks have the scores that they always have, bit for bit."""
    keys = undisturbed.table["id"].to_pylist()
    without = {keys[row] for chunk in chunks for row in range(50 * chunk, 50 * chunk + 50)}
    expected = {key: score for key, score in scores_by_key(undisturbed).items() if key not in without}
    assert scores_by_key(job) == expected


def once(*but: int) -> dict[int, int]:
    return {chunk: 1 for chunk in range(CHUNKS) if chunk not in but}


# Faults that may pass


def test_what_may_pass_is_tried_again_and_leaves_no_trace(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    ran = run(executor, configuration(tmp_path, data), {3: ["io"], 17: ["io", "io"], LABELS: ["io"]})
    assert published(ran.done) == published(undisturbed)
    assert ran.executions == {**once(), 3: 2, 17: 3}
    assert ran.script.executions()[LABELS] == 2
    assert ran.told.counts == {"retried": 4}
    assert (ran.done.receipts.computed, ran.done.receipts.reused) == (CHUNKS, 0)
    texts = ran.told.texts("retried")
    assert "chunk 3 (rows 150-199): scripted: Input/output error; attempt 2 in 0.1 s" in [
        text.replace("0.0 s", "0.1 s") for text in texts
    ]


def test_while_a_chunk_waits_for_its_next_attempt_others_are_done(
    executor: Executor, run: Runner, tmp_path: Path, data: Path
) -> None:
    config = configuration(tmp_path, data, retries={"delay_seconds": 0.3, "jitter": 0})
    journal = run(executor, config, {0: ["io"]}).script.journal()
    first, second = (number for number, line in enumerate(journal) if line == "begin chunk 0")
    assert sum(line.startswith("end") for line in journal[first:second]) >= 1
    assert journal.index("end chunk 1") < second


def test_after_the_last_attempt_the_job_fails_with_the_error_and_names_the_chunk(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data, retries={"attempts": 3, "delay_seconds": 0})
    ran = run(executor, config, {5: ["io", "again"]})
    text = ran.failed(StorageUnavailable)
    assert "chunk 5 (rows 250-299) failed after 3 attempts: scripted: Input/output error" in text
    assert ran.repeated == {5: 3}
    assert ran.told.counts == {"retried": 2, "chunk failed": 1}
    assert_resumes(executor, run, config, undisturbed)


def assert_resumes(executor: Executor, run: Runner, config: BatchConfig, undisturbed: Job) -> Run:
    """Check that the job goes on from what was committed, and does not do any of that again."""
    again = run(executor, config)
    receipts = again.done.receipts
    assert published(again.done) == published(undisturbed)
    assert receipts.reused + receipts.computed == len(again.done.plan.chunks)
    assert set(again.executions.values()) <= {1}
    assert len(again.executions) == receipts.computed
    return again


def test_an_error_that_nobody_knows_is_no_chunks_fault_and_comes_through_as_it_is(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data, tolerate={"chunks": "100%"})
    ran = run(executor, config, {8: ["bug"]})
    assert ran.failed(ZeroDivisionError) == "scripted"
    assert ran.executions[8] == 1
    assert ran.told.counts == {}
    assert 8 in assert_resumes(executor, run, config, undisturbed).executions


def test_exactly_what_is_missing_is_computed_when_a_failed_job_is_resumed(
    run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    with open_executor(SerialCluster(kind="serial")) as serial:
        config = configuration(tmp_path, data)
        assert run(serial, config, {23: ["source"]}).executions == dict.fromkeys(range(24), 1)
        again = assert_resumes(serial, run, config, undisturbed)
        assert again.executions == dict.fromkeys(range(23, CHUNKS), 1)
        assert (again.done.receipts.reused, again.done.receipts.computed) == (23, 17)
        finished = assert_resumes(serial, run, config, undisturbed)
        assert finished.executions == {}


# Too little memory


@pytest.mark.parametrize("faults", [["memory"], ["memory", "memory"]])
def test_a_chunk_that_needs_too_much_memory_is_done_in_halves(
    executor: Executor,
    run: Runner,
    tmp_path: Path,
    big_data: Path,
    big_undisturbed: Job,
    faults: list[Fault],
) -> None:
    ran = run(executor, configuration(tmp_path, big_data, chunk_rows=4_000), {1: faults})
    assert published(ran.done) == published(big_undisturbed)
    assert ran.done.scores.tobytes() == big_undisturbed.scores.tobytes()
    assert ran.repeated == {1: 1 + len(faults)}
    assert ran.told.counts == {"split": len(faults)}
    receipts = [job.receipts.in_order[1] for job in (ran.done, big_undisturbed)]
    assert receipts[0].summary == receipts[1].summary


def test_a_chunk_that_cannot_be_halved_any_more_has_failed(
    executor: Executor, run: Runner, tmp_path: Path, big_data: Path, big_undisturbed: Job
) -> None:
    config = configuration(tmp_path, big_data, chunk_rows=4_000)
    ran = run(executor, config, {2: ["memory", "again"]})
    chunk = str(big_undisturbed.plan.chunks[2])
    assert f"{chunk} failed after 3 attempts: out of memory scripted" in ran.failed(OutOfMemory)
    # Whole, in 2 and in 4; in 8 there would be less than a thousand rows in each.
    assert ran.repeated == {2: 3}
    assert ran.told.counts == {"split": 2, "chunk failed": 1}
    assert_resumes(executor, run, config, big_undisturbed)


def test_memory_that_is_really_exceeded_costs_a_split_and_nothing_else(
    workers: Executor, run: Runner, tmp_path: Path, big_data: Path, big_undisturbed: Job
) -> None:
    config = configuration(tmp_path, big_data, chunk_rows=4_000)
    ran = run(workers, config, {2: ["hog", "hog"]})
    assert published(ran.done) == published(big_undisturbed)
    assert ran.executions[2] == 3
    assert ran.told.counts["split"] == 1
    assert_lost_no_more_than(ran, kills=2)


# Lost workers


def assert_lost_no_more_than(ran: Run, kills: int, culprits: frozenset[int] = frozenset({2, 3})) -> None:
    """Check that a worker's death cost its neighbours one execution more at most."""
    others = [count for chunk, count in ran.executions.items() if chunk not in culprits]
    assert max(others) <= 2
    assert sum(others) <= len(others) + kills * GIVEN
    assert set(ran.told.counts) <= {"worker lost", "split", "chunk failed", "retried", "adapted"}


def test_a_chunk_that_kills_its_worker_once_is_done_all_the_same(
    workers: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    ran = run(workers, configuration(tmp_path, data), {3: ["kill"]})
    assert published(ran.done) == published(undisturbed)
    assert ran.executions[3] == 2
    assert (ran.done.receipts.computed, ran.done.receipts.failed) == (CHUNKS, ())
    assert 1 <= ran.told.counts["worker lost"] <= GIVEN
    assert_lost_no_more_than(ran, kills=1)


@pytest.mark.parametrize("culprits", [{3}, {3, 21}])
def test_who_kills_his_worker_every_time_fails_alone_and_the_others_are_published(
    workers: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job, culprits: set[int]
) -> None:
    config = configuration(tmp_path, data, tolerate={"chunks": len(culprits)})
    ran = run(workers, config, {chunk: ["kill", "again"] for chunk in culprits})
    failed = ran.done.manifest.chunks_failed
    assert {chunk.chunk for chunk in failed} == culprits
    assert {(chunk.error, chunk.message, chunk.attempts) for chunk in failed} == {
        ("OutOfMemory", "the worker died while this chunk ran alone", 3)
    }
    assert_scored_but(ran.done, undisturbed, culprits)
    assert {ran.executions[chunk] for chunk in culprits} == {3}
    assert_lost_no_more_than(ran, len(culprits) * 5, frozenset(culprits))


def test_who_kills_his_worker_every_time_fails_the_job_where_none_is_tolerated(
    workers: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data)
    ran = run(workers, config, {3: ["kill", "again"]})
    text = ran.failed(OutOfMemory)
    assert "chunk 3 (rows 150-199) failed after 3 attempts" in text
    assert "cluster.memory_limit" in text
    assert ran.told.counts["chunk failed"] == 1
    assert ran.executions[3] == 3
    assert_resumes(workers, run, config, undisturbed)


def test_big_killers_are_halved_before_they_are_given_up(
    workers: Executor, run: Runner, tmp_path: Path, big_data: Path
) -> None:
    config = configuration(tmp_path, big_data, chunk_rows=4_000, tolerate={"chunks": 1})
    ran = run(workers, config, {3: ["kill", "again"]})
    assert [chunk.chunk for chunk in ran.done.manifest.chunks_failed] == [3]
    # With others; alone, whole and in 2.
    assert [chunk.attempts for chunk in ran.done.manifest.chunks_failed] == [ran.executions[3]] == [3]
    assert ran.told.counts["split"] == 1


@pytest.mark.usefixtures("no_second_start")
@pytest.mark.parametrize("fault", ["kill", "io", "hang"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_each_start_is_an_attempt_and_there_are_no_more_than_configured(
    workers: Executor, run: Runner, tmp_path: Path, big_data: Path, fault: Fault, attempts: int
) -> None:
    sections = {"retries": {"attempts": attempts}, "tolerate": {"chunks": 1}}
    chunking = {"timeout_seconds": 2 if fault == "hang" else 60}
    config = configuration(tmp_path, big_data, chunk_rows=4_000, chunking=chunking, **sections)
    ran = run(workers, config, {3: [fault, "again"]})
    assert [(one.chunk, one.attempts) for one in ran.done.manifest.chunks_failed] == [(3, attempts)]
    assert ran.executions[3] == attempts
    assert max(count for chunk, count in ran.executions.items() if chunk != 3) == 1


def test_labelling_outlives_its_worker(
    workers: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    ran = run(workers, configuration(tmp_path, data), {LABELS: ["kill"]})
    assert published(ran.done) == published(undisturbed)
    assert ran.executions == once()
    assert ran.script.executions()[LABELS] == 2
    assert ran.told.counts == {"worker lost": 1}


# Workers that don't answer


@pytest.fixture
def no_second_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no chunk count as a straggler."""
    monkeypatch.setattr("siftline.engine.dask_session.Pace", lambda: Pace(least_seconds=math.inf))


@pytest.mark.usefixtures("no_second_start")
@pytest.mark.parametrize("fault", ["hang", pytest.param("freeze", marks=pytest.mark.soak), "stop"])
def test_a_chunk_without_end_costs_its_worker_a_restart_and_is_tried_again(
    workers: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job, fault: Fault
) -> None:
    config = configuration(tmp_path, data, chunking={"timeout_seconds": 5})
    ran = run(workers, config, {3: [fault]})
    assert published(ran.done) == published(undisturbed)
    assert ran.executions[3] == 2
    assert ran.told.texts("retried") == [text_of_timeout(ran, 3, "5")]
    assert ran.told.counts["worker lost"] <= GIVEN
    assert_lost_no_more_than(ran, kills=1)
    # The others went on meanwhile.
    journal = ran.script.journal()
    first, second = (number for number, line in enumerate(journal) if line == "begin chunk 3")
    assert sum(line.startswith("end") for line in journal[first:second]) >= 1


def text_of_timeout(ran: Run, chunk: int, seconds: str) -> str:
    (text,) = ran.told.texts("retried")
    assert text.startswith(
        f"chunk {chunk} (rows {50 * chunk}-{50 * chunk + 49}): no result after {seconds} s; "
        "the worker was restarted; attempt 2 in "
    )
    return text


@pytest.mark.soak
@pytest.mark.usefixtures("no_second_start")
def test_a_chunk_that_never_comes_to_an_end_fails_the_job_in_the_end(
    dask: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data, chunking={"timeout_seconds": 10}, retries={"attempts": 2})
    ran = run(dask, config, {3: ["hang", "again"]})
    assert "chunk 3 (rows 150-199) failed after 2 attempts: no result after 10 s" in ran.failed(ChunkTimeout)
    assert ran.executions[3] == 2
    assert_resumes(dask, run, config, undisturbed)


@dataclass(frozen=True)
class Note:
    """Something quickly done, that says where."""

    number: int

    def __str__(self) -> str:
        return f"note {self.number}"


def process_of(note: Note) -> int:
    return os.getpid()


def test_what_travels_together_is_told_apart_when_one_of_it_kills_its_worker(
    dask: Executor, tmp_path: Path
) -> None:
    script = Script.write(tmp_path / "script", {"note 21": ["kill", "again"]})
    retries, notes = RetriesConfig(delay_seconds=0.05), [Note(number) for number in range(64)]
    settling = run_with_retries(FaultyExecutor(dask, script), process_of, notes, retries, bundle=4)
    settled = {one.item.number: one for one in settling}
    assert len(settled) == len(notes)
    assert [number for number, one in settled.items() if one.error is not None] == [21]
    assert isinstance(settled[21].error, OutOfMemory)
    executions = script.executions()
    # What was done before it in the bundle is answered, and what comes after it had not begun.
    assert executions == {f"note {number}": 3 if number == 21 else 1 for number in range(64)}
    assert settled[21].attempts == 3


def all_done(executor: Executor, script: Script, tasks: int) -> None:
    """Wait until so many tasks are done, and everybody has heard of it."""
    wait_until(lambda: sum(line.startswith("end") for line in script.journal()) == tasks, "all is done")
    client = client_of(executor)
    wait_until(lambda: not any(client.processing().values()), "Dask has heard of it")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_workers_have_done_is_not_lost_with_them(
    dask: Executor, tmp_path: Path, number: signal.Signals
) -> None:
    script = Script.write(tmp_path / "script", {})
    client = client_of(dask)
    workers = client.run(os.getpid)
    coming = answers(FaultyExecutor(dask, script), process_of, [Note(note) for note in range(20)])
    first = next(coming)
    all_done(dask, script, 20)
    for process in workers.values():
        os.kill(process, number)
    try:
        found = {value_of(answer) for answer in (first, *coming)}
    finally:
        if number == signal.SIGKILL:
            wait_until(lambda: not workers.keys() & client.nthreads().keys(), "Dask knows of their death")
        else:
            for process in workers.values():
                os.kill(process, signal.SIGCONT)
    assert found == set(workers.values())
    assert script.executions() == {f"note {note}": 1 for note in range(20)}


def test_what_is_done_is_not_overdue_however_late_it_is_looked_at(dask: Executor, tmp_path: Path) -> None:
    script = Script.write(tmp_path / "script", {})
    processes = set(client_of(dask).run(os.getpid).values())
    seconds = 0.5
    notes = [Note(note) for note in range(100)]
    found = set()
    coming = answers(FaultyExecutor(dask, script), process_of, notes, timeout_seconds=seconds)
    for number, answer in enumerate(coming):
        found.add(value_of(answer))
        if number in (0, 40):
            # Something takes its time with an answer, such as a storage that is gone for a while.
            looked_at = time.monotonic()
            wait_until(lambda: time.monotonic() > looked_at + 2 * seconds, "time has passed")  # noqa: B023
    assert found <= processes
    assert set(script.executions().values()) == {1}


# Chunks that are given up, and how many may be


def test_as_many_chunks_may_fail_as_are_tolerated(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data, tolerate={"chunks": "5%"})
    ran = run(executor, config, {7: ["source"], 30: ["io", "again"]})
    manifest = ran.done.manifest
    assert (manifest.rows, manifest.rows_failed, manifest.chunks) == (ROWS, 100, CHUNKS)
    assert [one.model_dump() for one in manifest.chunks_failed] == [
        {
            "chunk": 7,
            "first_row": 350,
            "rows": 50,
            "error": "SourceError",
            "message": "scripted: not to be read",
            "attempts": 1,
        },
        {
            "chunk": 30,
            "first_row": 1500,
            "rows": 50,
            "error": "StorageUnavailable",
            "message": "scripted: Input/output error",
            "attempts": 3,
        },
    ]
    assert_scored_but(ran.done, undisturbed, {7, 30})
    assert ran.executions == {**once(), 30: 3}
    assert ran.told.counts == {"retried": 2, "chunk failed": 2}


def test_one_chunk_more_and_the_job_fails_until_more_is_tolerated(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    faults: dict[int | str, list[Fault]] = {chunk: ["source", "again"] for chunk in (7, 30, 35)}
    ran = run(executor, configuration(tmp_path, data, tolerate={"chunks": "5%"}), faults)
    text = ran.failed(SourceError)
    assert text.startswith("2 chunks failed, now chunk ")
    assert "failed after 1 attempt: scripted: not to be read" in text
    assert ran.told.counts == {"chunk failed": 3}
    assert ran.repeated == {}

    more = run(executor, configuration(tmp_path, data, tolerate={"chunks": 3}), faults)
    receipts = more.done.receipts
    assert [one.chunk for one in receipts.failed] == [7, 30, 35]
    assert receipts.reused + receipts.computed == CHUNKS - 3
    assert receipts.reused > 0
    # What is done is reused; what failed, and what was not come to, is executed once.
    assert len(more.executions) == receipts.computed + 3
    assert set(more.executions.values()) == {1}
    assert_scored_but(more.done, undisturbed, {7, 30, 35})

    assert_resumes(executor, run, configuration(tmp_path, data), undisturbed)


# Rows that are set aside


FLAWED = (33, 1_234, 1_999)


def flawed_table(flaws: Sequence[int]) -> pa.Table:
    table = make_table(ROWS)
    x = table["x"].to_numpy().copy()
    x[list(flaws)] = math.inf
    return table.set_column(table.column_names.index("x"), "x", pa.array(x))


@pytest.mark.parametrize(("tolerated", "flaws"), [(2, 2), ("0.1%", 2)])
def test_as_many_rows_may_be_set_aside_as_are_tolerated(
    executor: Executor, run: Runner, tmp_path: Path, tolerated: int | str, flaws: int
) -> None:
    rows = FLAWED[:flaws]
    data = write_files(tmp_path / "data", flawed_table(rows))
    ran = run(executor, configuration(tmp_path, data, tolerate={"rows": tolerated}))
    manifest = ran.done.manifest
    assert (manifest.rows, manifest.rows_failed, manifest.chunks_failed) == (ROWS, flaws, ())
    (file,) = manifest.failed_files
    failed = pq.read_table(Path(ran.done.plan.config.output.path) / file.name)
    assert failed.column_names == ["id", "row", "error", "message", "attempts"]
    why = "feature x is infinite, or too large for 32-bit floating point"
    assert [tuple(row.values()) for row in failed.to_pylist()] == [
        (f"r{row:06d}", row, "RowError", why, 1) for row in rows
    ]
    assert ran.executions == once()
    assert ran.told.counts == {"rejected": flaws}

    # The other rows are scored as if those had never been there.
    clean = flawed_table(rows).take(pa.array(np.delete(np.arange(ROWS), rows)))
    alone = run_job(configuration(tmp_path / "clean", write_files(tmp_path / "clean" / "data", clean)))
    assert ran.done.scores.tobytes() == alone.scores.tobytes()
    assert ran.done.labels.tobytes() == alone.labels.tobytes()
    assert ran.done.combined.threshold == alone.combined.threshold


@pytest.mark.parametrize(("tolerated", "flaws"), [(0, 1), ("0.1%", 3)])
def test_one_row_more_and_the_job_fails_until_more_is_tolerated(
    executor: Executor, run: Runner, tmp_path: Path, tolerated: int | str, flaws: int
) -> None:
    # Neither the footer nor the sample has them, so that the job gets as far as that.
    data = tmp_path / "flawed.parquet"
    pq.write_table(flawed_table(FLAWED[:flaws]), data, write_statistics=False)
    model = run_job(configuration(tmp_path / "other", write_files(tmp_path / "fine", make_table(ROWS))))
    detector = {"model": model.detector.path, "params": {}}
    config = configuration(tmp_path, data, tolerate={"rows": tolerated}, detector=detector)
    ran = run(executor, config)
    text = ran.failed(RowError)
    assert "feature x is infinite" in text
    assert f"{flaws} row{'s' if flaws > 1 else ''} so far cannot be scored" in text
    assert "tolerate.rows" in text
    assert set(ran.executions.values()) == {1}

    more = run(executor, configuration(tmp_path, data, tolerate={"rows": 3}, detector=detector))
    assert more.done.manifest.rows_failed == flaws
    assert len(more.executions) == more.done.receipts.computed
    assert set(more.executions.values()) <= {1}
    expected = {
        key: score for key, score in scores_by_key(model).items() if int(key[1:]) not in FLAWED[:flaws]
    }
    assert scores_by_key(more.done) == expected


# Files


def test_a_part_file_that_is_torn_afterwards_is_noticed_and_computed_again(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data)
    ran = run(executor, config, {11: ["tear"]})
    assert "/chunk-0000011-" in ran.failed(PartDamaged)
    assert not (Path(config.output.path) / "manifest.json").exists()
    again = assert_resumes(executor, run, config, undisturbed)
    assert again.executions == {11: 1}
    assert again.told.counts == {"recomputed": 1}
    (text,) = again.told.texts("recomputed")
    assert text.startswith("chunk 11 (rows 550-599): its file chunk-0000011-")


def test_a_full_disk_ends_the_job_and_what_was_committed_is_kept(
    executor: Executor, run: Runner, tmp_path: Path, data: Path, undisturbed: Job
) -> None:
    config = configuration(tmp_path, data)
    parts = plan_batch(config).parts
    with small_disk(parts, kilobytes=2_000):
        ran = run(executor, config, {12: ["fill"]})
        text = ran.failed(StorageError)
        assert "No space left on device" in text
        assert "free some space" in text
        assert ran.repeated == {}
        # What was under way on the other worker comes to its end, too.
        wait_until(lambda: not list(parts.glob("*.tmp")), "nothing half-written is left")
        (parts / FILLER).unlink()
        again = assert_resumes(executor, run, config, undisturbed)
        assert 12 in again.executions
        assert again.told.counts == {}
