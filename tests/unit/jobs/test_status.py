"""The status of a job from its checkpoint and output alone: at work, after its end, after its death."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from siftline.batch_plan import BatchPlan
from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.jobs.live import LiveRecord, live_record
from siftline.jobs.monitor import Monitor
from siftline.jobs.record import JobRecord, Outcome, concluded, read_job, write_job
from siftline.jobs.results import manifest_record
from siftline.jobs.status import FINAL, State, job_status, live_status
from siftline.progress import Incident, Progress, Usage, WorkerUsage, listening
from siftline.stages.detect import detect_chunks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.storage.lease import Lease
from tests.support import JsonStore, make_config, make_table, run_job, write_files

STATES: dict[Outcome, State] = {
    "published": "completed",
    "failed": "failed",
    "failed for good": "failed",
    "cancelled": "cancelled",
    "suspended": "suspended",
}
FAILED = JobRecord(outcome="failed", run="run-1", at="2026-01-01T00:00:00+00:00", error="E: x", recoveries=2)


def half_done(plan: BatchPlan, run: str = "run-1") -> Monitor:
    """A monitor of a run that has scored half of the rows, on two workers."""
    monitor = Monitor(run, plan.config.name)
    monitor.begin(plan, "2026-03-01")
    total = len(plan.chunks)
    monitor(Progress("fit"))
    monitor(Progress("detect", 0, total, 0, plan.rows))
    monitor(Progress("detect", total // 2, total, plan.rows // 2, plan.rows, retried=1, anomalies=7))
    monitor(Incident("retried", "chunk 1: away; attempt 2 in 0.0 s", 1))
    monitor(Usage((WorkerUsage("a", 90.0, 1000, 2000), WorkerUsage("b", 80.0, 500)), "http://dashboard"))
    return monitor


def write_live(plan: BatchPlan, **changes: Any) -> LiveRecord:
    live = half_done(plan).record(ended=changes.pop("ended", False)).model_copy(update=changes)
    live_record(plan.directory).write(live)
    return live


@pytest.mark.parametrize("outcome", STATES)
def test_the_state_of_an_idle_job_is_its_last_outcome(config: BatchConfig, outcome: Outcome) -> None:
    directory = plan_batch(config).directory
    write_job(directory, concluded(JobRecord(), outcome, "run-1"))

    status = job_status(directory)

    assert (status.job_id, status.state, status.flow_run_id) == (directory.name, STATES[outcome], "run-1")
    assert status.final is (status.state in FINAL) is (outcome != "suspended")
    assert status.since == status.ended == datetime.fromisoformat(str(read_job(directory).at))


def test_a_job_at_work_has_its_progress_its_workers_and_its_speed(config: BatchConfig) -> None:
    plan = plan_batch(config)
    with Lease("run-1") as lease:
        lease.take(plan.directory)
        live = write_live(plan, rows_per_second=150.0)
        status = job_status(plan.directory)

    assert (status.state, status.final, status.error) == ("running", False, None)
    assert (status.name, status.interval) == ("batch", "2026-03-01")
    assert (status.stage, [one.stage for one in status.stages]) == ("detect", ["fit", "detect"])
    assert (status.chunks.done, status.chunks.total, status.chunks.retried) == (4, 9, 1)
    assert (status.rows.done, status.rows.total, status.percent, status.anomalies) == (300, 600, 50.0, 7)
    assert (status.rows_per_second, status.eta_seconds) == (150.0, 2.0)
    assert [worker.address for worker in status.workers] == ["a", "b"]
    assert status.links.dashboard == "http://dashboard"
    assert [(one.kind, one.chunk) for one in status.alerts] == [("retried", 1)]
    assert status.incidents == {"retried": 1}
    assert (status.output, status.source) == (str(plan.output.root), plan.config.source.path)
    assert status.since == status.started is not None
    assert status.updated == live.updated


@pytest.mark.parametrize("outcome", ["cancelled", "published"])
def test_a_run_that_begins_shows_nothing_that_the_one_before_did(
    config: BatchConfig, outcome: Outcome
) -> None:
    plan = finish(config, outcome)
    write_live(plan)
    with Lease("run-2") as lease:
        lease.take(plan.directory)
        status = job_status(plan.directory)
    assert (status.state, status.flow_run_id) == ("running", "run-2")
    assert (status.stage, status.workers, status.rows_per_second, status.eta_seconds) == (
        None,
        (),
        None,
        None,
    )
    assert (status.chunks.done, status.chunks.total, status.rows.total) == (0, 9, 600)
    assert (status.percent, status.anomalies, status.threshold, status.alerts) == (None, None, None, ())
    assert (status.name, status.output) == ("batch", str(plan.output.root))


def test_a_run_after_a_failure_recovers(config: BatchConfig) -> None:
    plan = plan_batch(config)
    write_job(plan.directory, FAILED)
    before = job_status(plan.directory)
    with Lease("run-2") as lease:
        lease.take(plan.directory)
        recovering = job_status(plan.directory)
    assert (before.state, before.error, before.recoveries) == ("failed", "E: x", 2)
    assert (recovering.state, recovering.final, recovering.error) == ("recovering", False, None)
    assert (recovering.flow_run_id, recovering.recoveries) == ("run-2", 2)
    assert job_status(plan.directory).state == "failed"


def work_until_killed(config: BatchConfig, plan: BatchPlan, most: int) -> None:
    """Score some chunks as a run does, with a live record that is older; never returns."""
    monitor = Monitor("run-9", config.name)
    monitor.begin(plan, None)
    seen = 0

    def listen(report: object) -> None:
        nonlocal seen
        if isinstance(report, Progress) and report.stage == "detect":
            seen += 1
            if seen == 2:  # then it is not written again
                live_record(plan.directory).write(monitor.record())
            if report.chunks_done == most:
                os.kill(os.getpid(), signal.SIGKILL)

    lease = Lease("run-9")
    lease.take(plan.directory)
    store = JsonStore(plan.files.receipts)
    executor = SerialExecutor()
    with listening(monitor), listening(listen):
        detector = fit_detector(plan, executor)
        detect_chunks(plan, detector, executor, store, lease)


@pytest.mark.parametrize(("every", "scored", "committed"), [(1, 4, 4), (2, 5, 4), (4, 3, 0)])
def test_a_job_whose_run_was_killed_says_so_since_when_and_what_is_committed(
    tmp_path: Path, source: Path, every: int, scored: int, committed: int
) -> None:
    config = make_config(tmp_path, source, chunking={"rows": 100}, checkpoint={"every": every})
    plan = plan_batch(config)
    write_job(plan.directory, FAILED.model_copy(update={"recoveries": 0}))
    began = datetime.now(UTC).replace(microsecond=0)
    child = os.fork()
    if child == 0:
        try:
            work_until_killed(config, plan, scored)
        finally:
            os._exit(1)
    _, ended = os.waitpid(child, 0)
    assert os.WTERMSIG(ended) == signal.SIGKILL

    status = job_status(plan.directory)

    assert (status.state, status.final, status.flow_run_id) == ("interrupted", True, "run-9")
    assert (status.chunks.done, status.chunks.total) == (committed, 9)
    live = live_record(plan.directory).read()
    assert status.since == live.updated
    assert began <= status.since <= datetime.now(UTC)
    assert status.message == f"process {child} on {os.uname().nodename} ended without a word"
    assert (status.error, status.workers, status.stage) == (None, (), None)


def test_a_run_killed_before_it_wrote_anything_is_interrupted_since_its_start(config: BatchConfig) -> None:
    plan = plan_batch(config)
    write_live(plan, updated=datetime.now(UTC) - timedelta(days=1))
    child = os.fork()
    if child == 0:
        Lease("run-3").take(plan.directory)
        os._exit(0)
    os.waitpid(child, 0)
    status = job_status(plan.directory)
    assert (status.state, status.flow_run_id, status.since) == ("interrupted", "run-3", status.started)


def test_a_job_without_a_run_is_interrupted_since_no_known_time(config: BatchConfig) -> None:
    status = job_status(plan_batch(config).directory)
    assert (status.state, status.flow_run_id, status.since, status.error) == ("interrupted", None, None, None)


def test_a_torn_lease_is_that_of_an_unknown_run_since_no_known_time(config: BatchConfig) -> None:
    plan = plan_batch(config)
    (plan.directory / "lease-000001.json").write_text('{"format_version": 2, "ru')
    status = job_status(plan.directory)
    assert (status.state, status.flow_run_id, status.since) == ("running", "unknown", None)


def finish(config: BatchConfig, outcome: Outcome = "published") -> BatchPlan:
    """Do a job, and record what its run would."""
    job = run_job(config)
    total = len(job.plan.chunks)
    monitor = half_done(job.plan)
    monitor(Progress("detect", total, total, job.plan.rows, job.plan.rows, anomalies=99))
    live_record(job.plan.directory).write(monitor.record(ended=True))
    write_job(job.plan.directory, concluded(JobRecord(), outcome, "run-1"))
    return job.plan


def test_a_completed_job_has_the_result_of_its_manifest_and_is_a_hundred_per_cent(
    config: BatchConfig,
) -> None:
    plan = finish(config)
    status = job_status(plan.directory, with_size=True)
    assert (status.state, status.final, status.percent) == ("completed", True, 100.0)
    assert (status.anomalies, status.stage, status.workers) == (12, None, ())
    assert status.threshold is not None
    assert status.size_bytes is not None
    assert status.size_bytes >= (plan.directory / "plan.json").stat().st_size
    assert all(one.ended is not None for one in status.stages)
    assert status.links.report is None
    plan.output.report.touch()
    assert job_status(plan.directory).links.report == str(plan.output.report)


def test_rows_that_could_not_be_scored_make_a_completed_job_rejected(tmp_path: Path) -> None:
    table = make_table(300)
    values = table["x"].to_numpy().copy()
    values[[3, 77]] = np.inf
    path = write_files(
        tmp_path / "odd", table.set_column(table.column_names.index("x"), "x", pa.array(values))
    )
    config = make_config(tmp_path, path, tolerate={"rows": 2})
    assert job_status(finish(config).directory).state == "rejected"


def test_a_result_without_some_chunks_is_partial(config: BatchConfig) -> None:
    plan = finish(config, "failed")
    record = manifest_record(plan.output.root)
    record.write(record.read().model_copy(update={"complete": False}))
    assert job_status(plan.directory).state == "partial"


def test_a_result_of_another_job_in_the_same_output_is_not_this_ones(config: BatchConfig) -> None:
    plan = finish(config)
    other = config.model_copy(
        update={"threshold": config.threshold.model_copy(update={"contamination": 0.05})}
    )
    run_job(other, fresh=True)
    status = job_status(plan.directory)
    assert status.state == "completed"


def test_a_job_of_an_earlier_version_has_its_state_and_nothing_that_was_not_written(
    config: BatchConfig,
) -> None:
    plan = run_job(config).plan
    write_job(plan.directory, concluded(JobRecord(), "published", "run-1"))
    status = job_status(plan.directory)
    assert (status.state, status.name, status.output) == ("completed", "batch", plan.config.output.path)
    assert (status.chunks.total, status.percent, status.alerts) == (len(plan.chunks), None, ())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format_version": 1, "run": "x"}'])
def test_a_live_record_that_is_torn_or_forged_counts_as_none(config: BatchConfig, content: str) -> None:
    plan = plan_batch(config)
    (plan.directory / "live.json").write_text(content)
    status = job_status(plan.directory)
    assert (status.stages, status.chunks.total, status.updated) == ((), len(plan.chunks), None)


def test_a_job_whose_output_cannot_be_read_has_the_state_of_its_checkpoint(config: BatchConfig) -> None:
    plan = finish(config)
    live = live_record(plan.directory)
    live.write(live.read().model_copy(update={"output": "a" * 300}))
    status = job_status(plan.directory)
    assert (status.state, status.threshold, status.output) == ("completed", None, "a" * 300)


def test_a_live_record_alone_gives_the_status_of_a_run_elsewhere(config: BatchConfig) -> None:
    plan = plan_batch(config)
    live = half_done(plan).record()
    running = live_status(live, "running", "abc")
    assert (running.job_id, running.flow_run_id, running.state) == ("abc", "run-1", "running")
    assert (running.stage, len(running.workers), running.percent) == ("detect", 2, 50.0)
    ended = live_status(live, "failed", None)
    assert (ended.final, ended.stage, ended.workers) == (True, None, ())


def test_a_status_comes_back_from_its_json(config: BatchConfig) -> None:
    status = job_status(finish(config).directory, with_size=True)
    assert type(status).model_validate_json(status.model_dump_json()) == status
