"""A backfill: its intervals, its continuation after an interruption, and its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from siftline.config.schedules import Schedule, intervals_of
from siftline.errors import ConfigError
from siftline.flows.batch_detection import batch_detection
from siftline.flows.control import backfilling
from siftline.flows.control.backfilling import plan_backfill, run_intervals
from siftline.jobs.intervals import Ledger
from siftline.types import BatchResult
from tests.flows.batches import configuration

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 4)
DAYS = intervals_of(Schedule(cron="0 0 * * *"), FIRST, LAST)
TODAY = datetime.now(UTC).date()


class Server(SyncPrefectClient):
    """A connection that also plays the worker: a run has ended when it is read, and failed on some days."""

    def __init__(self) -> None:
        super().__init__(PREFECT_API_URL.value() or "")
        self.failing: tuple[str, ...] = ()
        self.unfinished: set[UUID] = set()
        self.most_at_once = 0

    def create_flow_run_from_deployment(self, deployment_id: UUID, **fields: Any) -> FlowRun:
        run = super().create_flow_run_from_deployment(deployment_id, **fields)
        self.unfinished.add(run.id)
        self.most_at_once = max(self.most_at_once, len(self.unfinished))
        return run

    def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        run = super().read_flow_run(flow_run_id)
        state: Any = Failed() if day_of(run) in self.failing else Completed()
        self.set_flow_run_state(run.id, state, force=True)
        self.unfinished.discard(run.id)
        return super().read_flow_run(flow_run_id)


def day_of(run: FlowRun) -> str:
    return str(run.parameters["interval"]["start"])[:10]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(backfilling, "get_run_logger", logging.getLogger)
    with Server() as server:
        yield server


def deploy(
    server: Server, directory: Path, output: str = "{{ date }}", cron: str | None = "0 0 * * *"
) -> DeploymentResponse:
    """A pipeline with its checkpoint in a directory."""
    config = {**configuration(directory), "output": {"path": str(directory / output)}}
    schedules = [{"cron": cron}] if cron else []
    made = server.create_deployment(
        server.create_flow(batch_detection),
        name=directory.name,
        parameters={"config": config, "schedules": schedules},
        tags=["siftline"],
    )
    return server.read_deployment(made)


def runs_of(server: Server, deployment: DeploymentResponse) -> list[FlowRun]:
    """The runs of a deployment, in the order in which they were started."""
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    found = server.read_flow_runs(deployment_filter=chosen)
    return sorted(found, key=lambda run: run.created or datetime.max.replace(tzinfo=UTC))


def publish(directory: Path, day: int) -> None:
    """Let a day's result be published, with 300 rows and 3 anomalies."""
    result = BatchResult(
        name="test",
        job_id="0" * 16,
        flow_run_id=None,
        state="Completed",
        rows=300,
        chunks=1,
        chunks_reused=0,
        chunks_computed=1,
        chunks_failed=0,
        rows_failed=0,
        anomaly_count=3,
        threshold=0.5,
        output="output",
        wall_seconds=1.0,
    )
    Ledger(directory / "checkpoint", "test").write(DAYS[day], "published", None, result=result)


def test_every_interval_is_run_the_oldest_first_and_never_more_at_once_than_asked_for(
    server: Server, tmp_path: Path
) -> None:
    deployment = deploy(server, tmp_path)

    report = run_intervals(server, plan_backfill(deployment, FIRST, LAST, False), 2, poll_seconds=0)

    days = [day.label for day in DAYS]
    runs = runs_of(server, deployment)
    assert [day_of(run) for run in runs] == days
    assert [sorted(run.tags) for run in runs] == [["backfill", "siftline"]] * 4
    assert [(one.interval.label, one.state) for one in report.intervals] == [
        (day, "Completed") for day in days
    ]
    assert server.most_at_once == 2


def test_an_interrupted_backfill_continues_with_its_own_runs_and_repeats_the_failed_ones(
    server: Server, tmp_path: Path
) -> None:
    deployment = deploy(server, tmp_path)
    server.failing = ("2026-03-02",)
    first = run_intervals(server, plan_backfill(deployment, FIRST, LAST, False), 1, poll_seconds=0)
    assert [one.good for one in first.intervals] == [True, False, True, True]

    server.failing = ()
    plan = plan_backfill(deployment, FIRST, LAST, False)
    again = run_intervals(server, plan, 1, poll_seconds=0)

    assert all(one.good for one in again.intervals)
    assert [day_of(run) for run in runs_of(server, deployment)] == [
        *(day.label for day in DAYS),
        "2026-03-02",
    ]
    plan.finish()
    run_intervals(server, plan_backfill(deployment, FIRST, LAST, False), 1, poll_seconds=0)
    assert len(runs_of(server, deployment)) == 9, "a finished backfill starts anew"


def test_published_intervals_are_skipped_or_done_again(server: Server, tmp_path: Path) -> None:
    deployment = deploy(server, tmp_path)
    publish(tmp_path, 1)

    missing = run_intervals(server, plan_backfill(deployment, FIRST, LAST, True), 1, poll_seconds=0)

    assert [one.state for one in missing.intervals] == ["Completed", "published before", *["Completed"] * 2]
    assert (missing.intervals[1].rows, missing.intervals[1].anomaly_count) == (300, 3)
    assert missing.table()[1]["interval"] == "2026-03-02"
    assert len(runs_of(server, deployment)) == 3

    run_intervals(server, plan_backfill(deployment, FIRST, LAST, False), 1, poll_seconds=0)
    fresh = [run.parameters.get("fresh", False) for run in runs_of(server, deployment)[3:]]
    assert fresh == [False, True, False, False]


@pytest.mark.parametrize(
    ("first", "last", "settings", "complaint"),
    [
        (LAST, FIRST, {}, "--to is before --from; swap the dates"),
        (TODAY, TODAY + timedelta(days=9), {}, "no interval in this range has ended yet; correct the dates"),
        (FIRST, LAST, {"output": "one"}, "all intervals have one output.path"),
        (FIRST, LAST, {"cron": None}, "has no schedule, so it has no intervals"),
    ],
)
def test_dates_and_pipelines_that_make_no_backfill_are_refused(
    server: Server, tmp_path: Path, first: date, last: date, settings: dict[str, Any], complaint: str
) -> None:
    deployment = deploy(server, tmp_path, **settings)
    with pytest.raises(ConfigError) as caught:
        plan_backfill(deployment, first, last, False)
    assert complaint in str(caught.value)
    assert runs_of(server, deployment) == []
