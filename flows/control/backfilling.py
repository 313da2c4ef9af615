"""The intervals of a backfill: planned, continued after an interruption, and run a few at a time."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from pydantic import ConfigDict, Field

from siftline.config.schedules import Interval, intervals_of
from siftline.errors import ConfigError
from siftline.flows.server import working_directory
from siftline.jobs.intervals import Ledger
from siftline.pipelines.assignment import Assignment, assignment_of
from siftline.progress import IntervalProgress, emit
from siftline.storage.layout import CheckpointFiles, Version
from siftline.storage.records import Record, RecordFile

_PUBLISHED = "published before"
_GOOD = {"Completed", _PUBLISHED}


class BackfilledInterval(Record):
    """State of an interval at the end of a backfill."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    interval: Interval
    state: str
    flow_run_id: UUID | None = None
    rows: int | None = None
    anomaly_count: int | None = Field(default=None, alias="anomalies")

    @property
    def good(self) -> bool:
        """True if its result is published."""
        return self.state in _GOOD


class BackfillReport(Record):
    """Result of a backfill, the oldest interval first."""

    pipeline: str
    intervals: tuple[BackfilledInterval, ...]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each interval."""
        return [
            {**one.model_dump(mode="json", exclude={"interval"}), "interval": one.interval.label}
            for one in self.intervals
        ]


class BackfillRecord(Record):
    """The last backfill of a pipeline: its dates, and the intervals to do again."""

    first: date
    last: date
    only_missing: bool
    token: str
    again: tuple[str, ...]
    done: bool = False


@dataclass(frozen=True)
class BackfillPlan:
    """A backfill: its intervals, and the record from which it continues after an interruption."""

    deployment: DeploymentResponse
    intervals: list[Interval]
    ledger: Ledger
    file: RecordFile[BackfillRecord]
    record: BackfillRecord

    def finish(self) -> None:
        """Let the next backfill with the same dates start anew."""
        self.file.write(self.record.model_copy(update={"done": True}))


def plan_backfill(
    deployment: DeploymentResponse, first: date, last: date, only_missing: bool
) -> BackfillPlan:
    """Plan the runs of a deployment for the intervals that start between two dates."""
    assignment = assignment_of(deployment.parameters)
    intervals = _intervals(deployment.name, assignment, first, last)
    root = working_directory(deployment) / assignment.config.checkpoint.path
    ledger = Ledger(root, assignment.config.name)
    file = RecordFile(CheckpointFiles.at(root).backfill(deployment.name), BackfillRecord, Version.BACKFILL)
    asked: dict[str, Any] = {"first": first, "last": last, "only_missing": only_missing}
    record = file.read_or(None)
    if record is not None and not record.done and record.model_dump(include=set(asked)) == asked:
        get_run_logger().info("continuing the interrupted backfill")
    else:
        again = () if only_missing else tuple(one.key for one in intervals if ledger.published(one))
        record = BackfillRecord(**asked, token=secrets.token_hex(4), again=again)
        file.write(record)
    return BackfillPlan(deployment, intervals, ledger, file, record)


def run_intervals(
    client: SyncPrefectClient, plan: BackfillPlan, parallel: int, poll_seconds: float = 1.0
) -> BackfillReport:
    """Start the runs of a backfill, the oldest interval first, and wait for all of them."""
    done: dict[str, BackfilledInterval] = {}
    if plan.record.only_missing:
        published = [one for one in plan.intervals if plan.ledger.published(one)]
        done = {one.key: _backfilled(plan, one, _PUBLISHED) for one in published}
    waiting = [one for one in plan.intervals if one.key not in done][::-1]
    running: dict[UUID, Interval] = {}
    while waiting or running:
        while waiting and len(running) < parallel:
            interval = waiting.pop()
            running[_start(client, plan, interval).id] = interval
            emit(IntervalProgress(interval.label, "started", len(done), len(plan.intervals)))
        for run in [client.read_flow_run(run_id) for run_id in running]:
            if run.state is not None and run.state.is_final():
                interval = running.pop(run.id)
                done[interval.key] = _backfilled(plan, interval, run.state_name or "Unknown", run.id)
                get_run_logger().info("%s: %s", interval.label, run.state_name)
                state = run.state_name or "Unknown"
                emit(IntervalProgress(interval.label, state, len(done), len(plan.intervals)))
        if running:
            time.sleep(poll_seconds)
    return BackfillReport(
        pipeline=plan.deployment.name, intervals=tuple(done[interval.key] for interval in plan.intervals)
    )


def _intervals(pipeline: str, assignment: Assignment, first: date, last: date) -> list[Interval]:
    asked = f"backfill from {first} to {last}"
    if not assignment.schedules:
        problem = f"pipeline {pipeline}: has no schedule, so it has no intervals"
        raise ConfigError(problem, "give it one, and apply it")
    if first > last:
        raise ConfigError(f"{asked}: --to is before --from", "swap the dates")
    now = datetime.now(UTC)
    found = [one for one in intervals_of(assignment.schedules[0], first, last) if one.end <= now]
    if not found:
        raise ConfigError(f"{asked}: no interval in this range has ended yet", "correct the dates")
    outputs = {assignment.batch(now, one).output.path for one in found[:2]}
    if len(outputs) < min(len(found), 2):
        problem = (
            f"pipeline {pipeline}: all intervals have one output.path, so each would replace the one before"
        )
        raise ConfigError(problem, "put {{ date }} or {{ interval.start }} into it, and apply it")
    return found


def _start(client: SyncPrefectClient, plan: BackfillPlan, interval: Interval) -> FlowRun:
    """Start the run of an interval, or find the one that this backfill has started before."""
    given: dict[str, Any] = {"interval": interval.model_dump(mode="json")}
    if interval.key in plan.record.again:
        given["fresh"] = True
    attempt = 0
    while True:
        run = client.create_flow_run_from_deployment(
            plan.deployment.id,
            parameters=given,
            tags=["backfill"],
            idempotency_key=f"backfill {plan.record.token} {interval.key} {attempt}",
        )
        if run.state is None or not run.state.is_final() or run.state.name in _GOOD:
            return run
        attempt += 1  # it had failed before this backfill was interrupted


def _backfilled(
    plan: BackfillPlan, interval: Interval, state: str, run: UUID | None = None
) -> BackfilledInterval:
    result = plan.ledger.published(interval)
    return BackfilledInterval(
        interval=interval,
        state=state,
        flow_run_id=run,
        rows=result.rows if result else None,
        anomaly_count=result.anomaly_count if result else None,
    )
