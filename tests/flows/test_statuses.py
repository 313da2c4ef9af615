"""The status of a job, a run or a pipeline, from the checkpoint, from the server, or from either alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
)

from siftline.config.loading import parse_config
from siftline.errors import ApiError, StorageUnavailable, UnknownJob, UnknownPipeline
from siftline.flows.batch_detection import batch_detection
from siftline.flows.control import run_states
from siftline.flows.control.run_states import present_run, state_of
from siftline.flows.control.statuses import batch_status
from siftline.flows.control.use_cases import create_scheduled_pipeline, remove_pipeline, trigger_pipeline_run
from siftline.flows.recovery import recovery
from siftline.jobs.live import live_record
from siftline.jobs.monitor import Monitor
from siftline.jobs.starting import starting
from siftline.jobs.status import batch_statuses
from siftline.progress import Progress
from siftline.stages import detect
from siftline.stages.plan import plan_batch
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.storage.lease import Lease
from siftline.types import BatchResult, ChunkReceipt
from tests.e2e.pipelines import write_pipeline
from tests.e2e.processes import Shell
from tests.faults import wait_until
from tests.flows.batches import configuration
from tests.flows.commands import call_siftline, inside

NOW = datetime.now(UTC)
NOWHERE = "http://127.0.0.1:1/api"
Breaking = Callable[[bool], None]


@pytest.fixture
def name() -> str:
    """A name that no other test has given to a run on the same server."""
    return f"n{uuid4().hex[:8]}"


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Breaking:
    """Make chunk 1 of 3 fail, or no longer."""

    def set_broken(broken: bool) -> None:
        def score(task: ChunkTask) -> ChunkReceipt:
            if broken and task.chunk.index == 1:
                raise StorageUnavailable("part-1: Input/output error", "check the disk")
            return score_chunk(task)

        monkeypatch.setattr(detect, "score_chunk", score)

    return set_broken


def values_of(directory: Path, name: str) -> dict[str, Any]:
    return configuration(directory, name=name, retries={"attempts": 1})


def fail(values: dict[str, Any]) -> str:
    """Run a job that fails, and return the id of its run."""
    state = batch_detection(values, return_state=True)
    assert state.is_failed()
    return str(state.state_details.flow_run_id)


def test_a_completed_run_has_one_status_by_its_id_its_job_and_its_name(tmp_path: Path, name: str) -> None:
    values = values_of(tmp_path, name)
    result = batch_detection(values)
    checkpoint = values["checkpoint"]["path"]

    found = batch_status(result.job_id[:6], checkpoint)

    assert (found.state, found.final, found.prefect_state) == ("completed", True, "Completed")
    assert (found.job_id, found.flow_run_id, found.name) == (result.job_id, result.flow_run_id, name)
    assert (found.chunks.done, found.rows.done, found.percent) == (3, 600, 100.0)
    assert (found.anomalies, found.threshold) == (result.anomaly_count, result.threshold)
    assert found.queue_seconds is not None
    assert found.links.run is None or found.links.run.endswith(str(result.flow_run_id))
    by_id = batch_status(UUID(str(result.flow_run_id)), "nowhere")  # its own configuration says where
    by_name = batch_status(name, checkpoint)
    assert by_id == by_name
    assert by_id.model_dump(exclude={"since"}) == found.model_dump(exclude={"since"})
    (alone,) = batch_statuses(checkpoint)
    assert (alone.state, alone.prefect_state) == ("completed", None)


def last_event(result: BatchResult) -> Any:
    """The status of a run from its events alone, once the last one is there."""

    def read() -> Any:
        found = batch_status(str(result.flow_run_id), "nowhere")
        return found if len(found.stages) == 7 else None

    return wait_until(read, "the events have reached the server")


def test_without_its_checkpoint_a_run_has_the_status_of_its_last_event(tmp_path: Path, name: str) -> None:
    values = values_of(tmp_path, name)
    result = batch_detection(values)
    (tmp_path / "checkpoint").rename(tmp_path / "elsewhere")

    found = last_event(result)

    assert (found.state, found.final, found.prefect_state) == ("completed", True, "Completed")
    assert (found.job_id, found.flow_run_id, found.name) == (result.job_id, result.flow_run_id, name)
    assert (found.chunks.done, found.chunks.total, found.percent) == (3, 3, 100.0)
    assert batch_status(name, "nowhere").job_id == result.job_id


def test_without_its_server_a_run_has_the_status_of_its_checkpoint(tmp_path: Path, name: str) -> None:
    values = values_of(tmp_path, name)
    result = batch_detection(values)
    checkpoint = values["checkpoint"]["path"]
    for server in ({PREFECT_API_URL: NOWHERE}, {}):
        with temporary_settings(server, restore_defaults={PREFECT_API_URL}):
            for target in (result.job_id[:4], name, str(result.flow_run_id)):
                found = batch_status(target, checkpoint)
                assert (found.state, found.job_id, found.prefect_state) == ("completed", result.job_id, None)
            with pytest.raises(ApiError):
                batch_status(uuid4(), checkpoint)


@pytest.mark.parametrize("target", ["none-such", "*", "/etc/passwd", "a/b/c", "..", "", "%2F", "\x1b[31m"])
@pytest.mark.parametrize("served", [True, False])
def test_a_name_of_nothing_is_refused(prefect_server: str, tmp_path: Path, target: str, served: bool) -> None:
    url = {PREFECT_API_URL: prefect_server} if served else {}
    with (
        temporary_settings(url, restore_defaults={PREFECT_API_URL}),
        pytest.raises(UnknownJob, match="no job, run or pipeline of that name"),
    ):
        batch_status(target, tmp_path)


def test_a_run_that_no_server_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownPipeline, match="the server does not have it"):
        batch_status(uuid4(), tmp_path)


def test_a_failed_run_recovers_as_soon_as_a_recovery_is_scheduled_and_until_its_end(
    tmp_path: Path, name: str, breaking: Breaking
) -> None:
    values = values_of(tmp_path, name)
    checkpoint = values["checkpoint"]["path"]
    breaking(True)
    run = fail(values)
    (job,) = batch_statuses(checkpoint)
    assert job.job_id is not None
    for target in (job.job_id, name, run):
        found = batch_status(target, checkpoint)
        assert (found.state, found.final, found.flow_run_id) == ("failed", True, run)
        assert "chunk 1 (rows 200-399) failed" in str(found.error)

    later = Scheduled(scheduled_time=NOW + timedelta(hours=1))
    with get_client(sync_client=True) as client:  # with a name of its own until it starts
        planned = client.create_flow_run(
            recovery, name="blue-fox", parameters={"flow_run_id": run}, state=later
        )

    for target in (job.job_id, name):
        found = batch_status(target, checkpoint)
        assert (found.state, found.final) == ("recovering", False), target
    by_job = batch_status(job.job_id, checkpoint)
    assert by_job.message == f"recovery {planned.id} is Scheduled"
    assert batch_status(run, checkpoint).state == "failed", "the run itself has ended"

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(planned.id, Cancelled(), force=True)
    assert batch_status(job.job_id, checkpoint).state == "failed"


@pytest.mark.parametrize("by", ["flow_run_id", "job_id"])
def test_a_pipeline_whose_failed_run_was_recovered_is_completed(
    tmp_path: Path, name: str, breaking: Breaking, by: str
) -> None:
    values = values_of(tmp_path, name)
    checkpoint = values["checkpoint"]["path"]
    breaking(True)
    run = fail(values)
    (job,) = batch_statuses(checkpoint)
    breaking(False)
    result = recovery(**{by: UUID(run) if by == "flow_run_id" else job.job_id}, checkpoint=checkpoint)

    found = batch_status(name, checkpoint)

    assert (found.state, found.flow_run_id) == ("completed", result.flow_run_id)
    assert (found.chunks.done, found.chunks.reused) == (3, 1)
    assert batch_status(run, checkpoint).state == "failed"


def test_a_pipeline_is_created_then_starting_then_queued_and_says_what_it_waits_for(
    tmp_path: Path, name: str, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, prefect_server)
    batch = {key: value for key, value in configuration(tmp_path).items() if key != "name"}
    path = write_pipeline(shell, name, pool=f"pool-{name}", batch=batch)
    with inside(shell):
        create_scheduled_pipeline(path)
        created = batch_status(name)
        run = trigger_pipeline_run(name)
        begun = batch_status(name)
        shown = call_siftline(shell, "status", name)
        monkeypatch.setattr("siftline.flows.control.run_states._LATE", timedelta(0))
        queued = batch_status(run.flow_run_id)
        remove_pipeline(name)

    assert (created.state, created.final, created.flow_run_id) == ("created", False, None)
    assert created.message == f"no run was started yet, and work pool pool-{name} has no worker"
    assert (begun.state, begun.prefect_state, begun.pipeline) == ("starting", "Scheduled", name)
    assert begun.flow_run_id == str(run.flow_run_id)
    assert (queued.state, queued.message) == ("queued", f"work pool pool-{name} has no worker")
    assert shown.status == 0
    assert shown.out.startswith(f"{name}  starting since ")
    assert f"work pool pool-{name} has no worker" in shown.out


def test_a_run_that_starts_in_a_process_here_is_starting_before_anything_else_is_known(
    tmp_path: Path, name: str
) -> None:
    with starting(tmp_path, name):
        found = batch_status(name, tmp_path)
    assert (found.state, found.final, found.job_id) == ("starting", False, None)
    assert "has begun, and has no job yet" in str(found.message)


def test_a_job_of_an_earlier_version_has_the_counts_of_its_plan_and_its_receipts(
    tmp_path: Path, name: str
) -> None:
    values = values_of(tmp_path, name)
    result = batch_detection(values)
    directory = tmp_path / "checkpoint" / "jobs" / result.job_id
    (directory / "live.json").unlink()
    found = batch_status(result.job_id, tmp_path / "checkpoint")
    assert (found.name, found.state, found.output) == (name, "completed", str(tmp_path / "output"))
    assert (found.chunks.total, found.chunks.done, found.rows.total) == (3, 3, 600)
    assert batch_status(name, tmp_path / "checkpoint").job_id == result.job_id

    (directory / "plan.json").write_text("{}")
    (torn,) = batch_statuses(tmp_path / "checkpoint")
    assert (torn.state, torn.message) == ("completed", "its plan is of another version of Siftline")


def test_an_event_of_another_version_counts_as_none(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.tasks.adapters.run_events._short", lambda record: {"run": "x", "new": 1})
    result = batch_detection(values_of(tmp_path, name))
    monkeypatch.setattr(run_states, "_own_checkpoint", lambda *given: [])
    found = batch_status(str(result.flow_run_id), "nowhere")
    assert (found.state, found.final, found.job_id) == ("completed", True, None)


def test_the_status_of_a_running_job_of_many_chunks_reads_no_plan_and_no_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = 5_000
    plan = plan_batch(parse_config(configuration(tmp_path)))
    receipts = plan.files.receipts / plan.token
    receipts.mkdir(parents=True)
    for number in range(chunks):
        (receipts / f"{number:07d}.json").touch()
    monitor = Monitor("run-1", "test")
    monitor.begin(plan, None)
    monitor(Progress("detect", 17, chunks, 170, 10 * chunks))
    live_record(plan.directory).write(monitor.record())
    opened: list[str] = []
    read, glob = Path.read_bytes, Path.glob

    def note(self: Path) -> bytes:
        opened.append(self.name)
        return read(self)

    def listed(self: Path, pattern: str, **options: Any) -> Any:
        assert plan.files.receipts not in (self, *self.parents), "the receipts are not listed"
        return glob(self, pattern, **options)

    with Lease("run-1") as lease:
        lease.take(plan.directory)
        monkeypatch.setattr(Path, "read_bytes", note)
        monkeypatch.setattr(Path, "glob", listed)
        (found,) = batch_statuses(tmp_path / "checkpoint")
        assert batch_status(plan.job_id[:7], tmp_path / "checkpoint") == found
    assert (found.state, found.chunks.done, found.chunks.total) == ("running", 17, chunks)
    assert set(opened) <= {"live.json", "job.json", "manifest.json", "lease-000001.json"}


def run_in(state: State[Any] | None, late: float = 0.0, tags: tuple[str, ...] = ()) -> FlowRun:
    due = datetime.now(UTC) - timedelta(seconds=late)
    started = due if state is not None and not state.is_scheduled() else None
    fields = {"flow_id": uuid4(), "state": state, "tags": list(tags), "expected_start_time": due}
    return FlowRun.model_validate({**fields, "start_time": started})


@pytest.mark.parametrize(
    ("state", "late", "tags", "word"),
    [
        (None, 0, (), "created"),
        (Scheduled(), -3600, (), "queued"),
        (Scheduled(), 1, (), "starting"),
        (Scheduled(), 60, (), "queued"),
        (AwaitingRetry(), -30, (), "recovering"),
        (Pending(), 0, (), "starting"),
        (Running(), 0, (), "starting"),
        (Cancelling(), 0, (), "running"),
        (Paused(), 0, (), "suspended"),
        (Cancelled(), 0, (), "cancelled"),
        (Crashed(), 0, (), "interrupted"),
        (Failed(), 0, (), "failed"),
        (Completed(), 0, (), "completed"),
        (Completed(), 0, ("siftline:rejects",), "rejected"),
        (Completed(), 0, ("mine", "siftline:partial"), "partial"),
    ],
)
def test_every_state_of_prefect_has_a_word(
    state: State[Any] | None, late: float, tags: tuple[str, ...], word: str
) -> None:
    assert state_of(run_in(state, late, tags)) == word


def test_the_run_of_a_pipeline_is_the_one_at_work_else_the_due_one_else_the_last() -> None:
    ended, older = run_in(Completed(), late=10), run_in(Failed(), late=100)
    planned, due, working = run_in(Scheduled(), late=-3600), run_in(Scheduled()), run_in(Running(), late=50)
    assert present_run([]) is None
    assert present_run([planned]) is None
    assert present_run([planned, ended, older]) is ended
    assert present_run([planned, due, ended]) is due
    assert present_run([planned, due, ended, working]) is working
