"""Runs that are about an interval, and the steps of the user's own around what they publish."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.states import Failed, Scheduled

from siftline import open_results
from siftline.config.schedules import Interval, Schedule, intervals_of
from siftline.errors import StepFailed, StorageUnavailable
from siftline.flows.batch_detection import batch_detection
from siftline.flows.recovery import recovery
from siftline.flows.run import schedule_missed as catch_up
from siftline.flows.run.lifecycle import Run
from siftline.jobs.intervals import Entry, Ledger
from siftline.jobs.status import batch_statuses
from siftline.pipelines.steps import STANDARD
from siftline.stages import detect
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.storage.lease import Lease
from siftline.types import BatchResult, ChunkReceipt
from tests.flows.batches import configuration, write_rows
from tests.flows.records import flow_run, label
from tests.flows.webhook import Webhook, serving

DAILY = {"cron": "0 0 * * *", "timezone": "America/New_York"}
# From one midnight in New York to the next.
DAY = {"start": "2026-03-01T05:00:00Z", "end": "2026-03-02T05:00:00Z"}
NEXT_DAY = {"start": "2026-03-02T05:00:00Z", "end": "2026-03-03T05:00:00Z"}
NO_DELAY = {"attempts": 2, "delay_seconds": 0}


@dataclass
class Steps:
    """Functions of the user's own: what they were called with, and what is raised of those that fail."""

    calls: list[tuple[str, BatchResult, dict[str, Any]]] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)

    def function(self, name: str) -> Callable[..., str]:
        def step(result: BatchResult, **settings: Any) -> str:
            self.calls.append((name, result, settings))
            if self.failing.get(name, 0):
                self.failing[name] -= 1
                raise ConnectionError(f"{name} has no network")
            return "done"

        return step

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """A module `company` with the functions a, b and c."""
    steps, module = Steps(), ModuleType("company")
    for name in "abc":
        setattr(module, name, steps.function(name))
    monkeypatch.setitem(sys.modules, "company", module)
    return steps


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Make chunk 1 of 3 fail, or no longer."""

    def set_away(failing: bool) -> None:
        def score(task: ChunkTask) -> ChunkReceipt:
            if failing and task.chunk.index == 1:
                raise StorageUnavailable("part-1: Input/output error", "check the disk")
            return score_chunk(task)

        monkeypatch.setattr(detect, "score_chunk", score)

    return set_away


def batch(directory: Path, **sections: Any) -> dict[str, Any]:
    """A configuration with an input and an output for each day: 300 rows on 1 March, 600 on the next."""
    values = configuration(directory, retries=NO_DELAY, **sections)
    write_rows(directory / "2026-03-01.parquet", 300, seed=1)
    write_rows(directory / "2026-03-02.parquet", 600, seed=2)
    values["source"]["path"] = str(directory / "{{ date }}.parquet")
    values["output"]["path"] = str(directory / "output" / "{{ interval.start.strftime('%d') }}")
    return values


def steps(*names: str, at: int = len(STANDARD), **fields: Any) -> list[dict[str, Any]]:
    """The standard steps, with some of the user's own among them."""
    given = [{"uses": name} for name in STANDARD]
    return [*given[:at], *({"uses": f"company:{name}", **fields} for name in names), *given[at:]]


def run(values: dict[str, Any], interval: dict[str, str] | None = DAY, **given: Any) -> State[BatchResult]:
    state = batch_detection(values, schedules=[DAILY], interval=interval, return_state=True, **given)
    assert isinstance(state, State)
    return state


def run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def entry(directory: Path, interval: dict[str, str] = DAY) -> Entry:
    found = Ledger(directory / "checkpoint", "test").entry(Interval.model_validate(interval))
    assert found is not None
    return found


# ----- what a run is about


def test_a_run_reads_and_writes_what_is_of_its_own_day(tmp_path: Path) -> None:
    values = batch(tmp_path)
    first, second = run(values).result(), run(values, NEXT_DAY).result()
    assert [first.rows, second.rows] == [300, 600]
    assert [Path(one.output).name for one in (first, second)] == ["01", "02"]
    assert first.interval == Interval.model_validate(DAY).local("America/New_York")
    assert flow_run(first.flow_run_id).name == "test 2026-03-01"
    found = entry(tmp_path)
    assert (found.outcome, found.run, found.result) == ("published", first.flow_run_id, first)


def test_a_run_is_about_the_interval_that_was_over_when_it_was_due(tmp_path: Path) -> None:
    values = batch(tmp_path)
    with get_client(sync_client=True) as client:
        due = client.create_flow_run(
            batch_detection,
            parameters={"config": values, "schedules": [DAILY]},
            state=Scheduled(scheduled_time=datetime(2026, 3, 3, 5, tzinfo=UTC)),
        )
        client.set_flow_run_state(due.id, Failed(message="its machine was on fire"), force=True)
    result = recovery(flow_run_id=due.id)
    assert (result.rows, result.interval) == (600, Interval.model_validate(NEXT_DAY).local(DAILY["timezone"]))


def test_a_run_that_is_started_now_is_about_the_interval_that_was_over_last(tmp_path: Path) -> None:
    result = batch_detection(configuration(tmp_path), schedules=[{"cron": "0 0 1 1 *"}])
    started = flow_run(result.flow_run_id).expected_start_time
    assert started is not None
    assert result.interval is not None
    assert (result.interval.start.year, result.interval.end.year) == (started.year - 1, started.year)


def test_a_run_without_a_schedule_is_called_by_when_it_was_due(tmp_path: Path) -> None:
    result = batch_detection(configuration(tmp_path))
    started = flow_run(result.flow_run_id)
    assert started.expected_start_time is not None
    assert started.name == f"test {started.expected_start_time:%Y-%m-%d %H:%M:%S}"
    assert result.interval is None
    assert not (tmp_path / "checkpoint" / "intervals").exists()


def test_parameters_are_filled_in(tmp_path: Path) -> None:
    values = batch(tmp_path)
    values["source"]["path"] = str(tmp_path / "{{ parameters.which }}.parquet")
    assert run(values, parameters={"which": "2026-03-02"}).result().rows == 600


# ----- each interval once


def test_an_interval_is_published_once_whatever_becomes_of_its_input(tmp_path: Path) -> None:
    values = batch(tmp_path)
    first = run(values).result()
    manifest = (Path(first.output) / "manifest.json").read_bytes()
    write_rows(tmp_path / "2026-03-01.parquet", 450)

    again = run(values)

    assert (again.type.value, label(again)) == ("COMPLETED", "already-published")
    assert again.result() == first.model_copy(update={"state": "AlreadyPublished", "chunks_computed": 0})
    assert (Path(first.output) / "manifest.json").read_bytes() == manifest
    assert entry(tmp_path).run == first.flow_run_id

    fresh = run(values, fresh=True).result()
    assert (fresh.state, fresh.rows) == ("Completed", 450)
    assert entry(tmp_path).result == fresh


def test_an_interval_without_its_input_fails_and_the_ledger_says_why(tmp_path: Path) -> None:
    values = batch(tmp_path)
    (tmp_path / "2026-03-01.parquet").unlink()
    assert label(run(values)) == "for-good"
    found = entry(tmp_path)
    assert (found.outcome, found.result) == ("failed", None)
    assert "2026-03-01.parquet" in str(found.reason)

    write_rows(tmp_path / "2026-03-01.parquet", 300)
    assert run(values).name == "Completed"
    assert (entry(tmp_path).outcome, entry(tmp_path).reason) == ("published", None)


def test_one_run_at_a_time_works_on_an_interval(tmp_path: Path) -> None:
    values = batch(tmp_path)
    ledger = Ledger(tmp_path / "checkpoint", "test")
    with Lease("another run") as lease:
        lease.take(ledger.directory(Interval.model_validate(DAY)))
        busy = run(values)
        assert (busy.type.value, label(busy)) == ("FAILED", "already-running")
        assert "interval 2026-03-01: " in str(busy.message)
        assert ledger.entry(Interval.model_validate(DAY)) is None
        assert run(values, NEXT_DAY).name == "Completed"
    assert run(values).name == "Completed"


# ----- steps of the user's own


def test_a_step_gets_the_result_of_its_interval_and_its_settings(tmp_path: Path, own: Steps) -> None:
    result = run(batch(tmp_path), steps=steps("a", at=2, settings={"to": "ops", "top": 3})).result()
    ((_, given, settings),) = own.calls
    assert type(given) is BatchResult
    assert given == result
    assert given.interval is not None
    assert (given.interval.label, given.rows, settings) == ("2026-03-01", 300, {"to": "ops", "top": 3})


def test_steps_are_done_in_order_without_an_interval_too(tmp_path: Path, own: Steps) -> None:
    values = configuration(tmp_path)
    batch_detection(values, steps=steps("b", "a"))
    assert own.names == ["b", "a"]
    assert batch_detection(values, steps=steps("b", "a")).state == "AlreadyPublished"
    assert own.names == ["b", "a"]
    batch_detection(values, steps=steps("b", "a"), fresh=True)
    assert own.names == ["b", "a"] * 2


def test_a_function_that_is_two_steps_is_called_twice(tmp_path: Path, own: Steps) -> None:
    twice = [*steps("a", at=2, settings={"to": "ops"}), {"uses": "company:a", "settings": {"to": "all"}}]
    own.failing["a"] = 0
    for _ in range(2):
        run(batch(tmp_path), steps=twice)
        assert [settings["to"] for _, _, settings in own.calls] == ["ops", "all"]


def test_a_step_that_fails_fails_the_run_but_not_what_is_published(tmp_path: Path, own: Steps) -> None:
    values = batch(tmp_path)
    own.failing["b"] = 1

    failed = run(values, steps=steps("a", "b", "c", at=2))

    assert (failed.type.value, label(failed)) == ("FAILED", "for-good")
    with pytest.raises(StepFailed, match="step company:b: ConnectionError: b has no network; fix it, "):
        failed.result()
    assert own.names == ["a", "b"]
    assert entry(tmp_path).outcome == "published"
    output = tmp_path / "output" / "01"
    manifest = (output / "manifest.json").read_bytes()
    assert open_results(output).manifest.complete

    again = run(values, steps=steps("a", "b", "c", at=2))

    assert (again.type.value, again.name, again.result().chunks_computed) == ("COMPLETED", "Completed", 0)
    assert own.names == ["a", "b", "b", "c"]
    assert (output / "manifest.json").read_bytes() == manifest
    assert [job.state for job in batch_statuses(str(tmp_path / "checkpoint"))] == ["completed"]

    last = run(values, steps=steps("a", "b", "c", at=2))
    assert label(last) == "already-published"
    assert own.names == ["a", "b", "b", "c"]


def test_a_step_whose_failure_is_a_warning_lets_the_run_go_on(tmp_path: Path, own: Steps) -> None:
    own.failing["a"] = 1
    given = [*steps("a", at=2, on_failure="warn"), {"uses": "company:b"}]
    assert run(batch(tmp_path), steps=given).name == "Completed"
    assert own.names == ["a", "b"]


def test_a_step_is_tried_as_often_as_it_says(tmp_path: Path, own: Steps) -> None:
    retries = {"attempts": 3, "delay_seconds": 0}
    own.failing["a"] = 2
    assert run(batch(tmp_path), steps=steps("a", retries=retries)).name == "Completed"
    assert own.names == ["a"] * 3

    own.failing["a"] = 9
    assert label(run(batch(tmp_path), NEXT_DAY, steps=steps("a", retries=retries))) == "for-good"
    assert own.names == ["a"] * 6


def test_a_step_that_cannot_be_imported_is_not_tried_again(tmp_path: Path, own: Steps) -> None:
    given = steps("nothing", at=2, retries={"attempts": 3, "delay_seconds": 3600})
    failed = run(batch(tmp_path), steps=given)
    assert label(failed) == "for-good"
    assert "company:nothing" in str(failed.message)


def test_a_step_after_the_notification_is_done_when_people_were_told(
    tmp_path: Path, own: Steps, webhook: Webhook
) -> None:
    values = batch(tmp_path, notify=[{"block": webhook.block("all")}])
    own.failing["a"] = 1

    assert label(run(values, steps=steps("a"))) == "for-good"
    assert [request.body["subject"] for request in webhook.received] == [
        "Siftline: test completed",
        "Siftline: test failed for good",
    ]
    run(values, steps=steps("a"))
    assert own.names == ["a", "a"]
    assert [job.state for job in batch_statuses(str(tmp_path / "checkpoint"))] == ["completed"]
    run(values, steps=steps("a"))
    assert own.names == ["a", "a"]


def test_nobody_is_told_of_what_a_step_before_the_notification_has_not_let_through(
    tmp_path: Path, own: Steps, webhook: Webhook
) -> None:
    values = batch(tmp_path, notify=[{"block": webhook.block("all"), "on": ["completed", "recovered"]}])
    own.failing["a"] = 1
    run(values, steps=steps("a", at=2))
    assert webhook.received == []
    run(values, steps=steps("a", at=2))
    assert len(webhook.received) == 1


def test_without_the_notification_nobody_is_told(tmp_path: Path, webhook: Webhook) -> None:
    values = batch(tmp_path, notify=[{"block": webhook.block("all")}])
    assert run(values, steps=steps()[:1]).name == "Completed"
    assert webhook.received == []


# ----- recovery


@pytest.mark.parametrize("by", ["run", "job"])
def test_a_run_that_failed_is_recovered_with_its_interval_and_its_steps(
    tmp_path: Path, own: Steps, away: Callable[[bool], None], by: str
) -> None:
    values = batch(tmp_path, chunking={"rows": 100})
    away(True)
    failed = run(values, steps=[*steps("a", at=2), {"uses": "company:b"}])
    assert (failed.name, own.names, entry(tmp_path).outcome) == ("Failed", [], "failed")
    away(False)
    if by == "run":
        result = recovery(flow_run_id=run_id(failed))
    else:
        (job,) = batch_statuses(str(tmp_path / "checkpoint"))
        result = recovery(job_id=job.job_id, checkpoint=str(tmp_path / "checkpoint"))

    assert (result.state, result.chunks_reused, result.rows) == ("Completed", 1, 300)
    assert [(name, given.interval) for name, given, _ in own.calls] == [
        (name, Interval.model_validate(DAY).local(DAILY["timezone"])) for name in "ab"
    ]
    assert (entry(tmp_path).outcome, entry(tmp_path).result) == ("published", result)
    assert label(run(values, steps=[*steps("a", at=2), {"uses": "company:b"}])) == "already-published"
    assert own.names == ["a", "b"]


@pytest.mark.parametrize("by", ["run", "job"])
def test_a_fresh_start_that_failed_is_not_done_by_what_was_published_for_its_interval(
    tmp_path: Path, own: Steps, away: Callable[[bool], None], by: str
) -> None:
    values = batch(tmp_path, chunking={"rows": 100})
    run(values, steps=steps("a"))
    away(True)
    failed = run(values, steps=steps("a"), fresh=True)
    assert failed.name == "Failed"
    away(False)
    if by == "run":
        result = recovery(flow_run_id=run_id(failed))
    else:
        (job,) = batch_statuses(str(tmp_path / "checkpoint"))
        result = recovery(job_id=job.job_id, checkpoint=str(tmp_path / "checkpoint"))
    assert (result.state, result.chunks_reused) == ("Completed", 1)
    assert own.names == ["a", "a"]
    assert label(run(values, steps=steps("a"))) == "already-published"


# ----- lateness


def test_a_run_that_a_schedule_started_too_late_is_skipped(
    tmp_path: Path, own: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.flows.run.intervals.started_by_schedule", lambda: True)
    late = {**DAILY, "catch_up": "skip", "max_lateness": "2h"}
    state = batch_detection(
        batch(tmp_path), schedules=[late], interval=DAY, steps=steps("a"), return_state=True
    )
    assert (state.type.value, label(state)) == ("CANCELLED", "skipped")
    assert "interval 2026-03-01 is skipped: " in str(state.message)
    assert label(run_id(state)) == "skipped"
    found = entry(tmp_path)
    assert (found.outcome, found.run, found.result) == ("skipped", str(run_id(state)), None)
    assert str(found.reason).endswith("late: missed intervals are skipped")
    assert (own.names, (tmp_path / "output").exists()) == ([], False)


def test_a_run_that_somebody_started_is_never_too_late(tmp_path: Path) -> None:
    late = {**DAILY, "catch_up": "skip", "max_lateness": "2h"}
    assert batch_detection(batch(tmp_path), schedules=[late], interval=DAY).state == "Completed"


def test_an_interval_whose_run_died_after_publishing_is_told_of_by_the_next(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = batch(tmp_path, notify=[{"block": webhook.block("all")}])

    def die(*given: object) -> None:
        raise RuntimeError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "complete", die)
        patch.setattr(Run, "fail", die)
        run(values)
    assert (entry(tmp_path).outcome, webhook.received) == ("published", [])
    assert label(run(values)) == "already-published"
    assert [request.body["subject"] for request in webhook.received] == ["Siftline: test completed"]
    assert label(run(values)) == "already-published"
    assert len(webhook.received) == 1


def test_missed_intervals_are_made_up_for_once_by_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(cron="0 0 * * *", catch_up="all", catch_up_limit=3)
    days = intervals_of(schedule, date(2026, 3, 1), date(2026, 3, 7))
    ledger = Ledger(tmp_path, "test")
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(batch_detection)
        deployment_id = client.create_deployment(flow_id=flow_id, name=tmp_path.name)
    monkeypatch.setattr(catch_up, "deployment", SimpleNamespace(id=str(deployment_id)))
    monkeypatch.setattr(catch_up, "get_run_logger", logging.getLogger)

    catch_up.schedule_missed(schedule, ledger, days[6])
    assert made_up(deployment_id) == []  # nothing is known to be missed of a pipeline that never ran

    ledger.write(days[0], "published", None)
    for _ in range(2):
        catch_up.schedule_missed(schedule, ledger, days[6])
        assert made_up(deployment_id) == days[4:6]

    catch_up.schedule_missed(schedule, ledger, days[1])
    assert made_up(deployment_id) == days[4:6]


def made_up(deployment_id: UUID) -> list[Interval]:
    """The intervals of the runs of a deployment, which are due when those were."""
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=chosen)
    found = [Interval.model_validate(one.parameters["interval"]) for one in runs]
    assert [one.expected_start_time for one in runs] == [interval.end for interval in found]
    assert all(one.tags == ["catch-up"] for one in runs)
    return sorted(found, key=lambda interval: interval.key)
