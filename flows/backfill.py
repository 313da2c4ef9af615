"""Backfill: runs of a pipeline for intervals of the past, oldest first, a few at a time."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from pydantic import PositiveInt

from flows.control.deployments import deployment_of
from flows.control.use_cases import workers_online
from flows.server import server
from siftline.config.schedules import Interval, intervals_of
from siftline.errors import BackfillFailed, ConfigError, IntegrityError
from siftline.jobs.intervals import Ledger
from siftline.pipelines.assignment import assignment_of
from siftline.storage.files import read_record, write_record
from siftline.storage.records import Record
from tasks.adapters.resolve import waited

FORMAT_VERSION = 1
_SECONDS_BETWEEN = 1.0


class BackfilledInterval(Record):
    """What became of an interval in a backfill."""

    interval: Interval
    state: str
    flow_run_id: UUID | None = None
    rows: int | None = None
    anomalies: int | None = None


class BackfillReport(Record):
    """What a backfill came to, the oldest interval first."""

    pipeline: str
    intervals: tuple[BackfilledInterval, ...]


@flow(
    name="backfill",
    flow_run_name="{pipeline} {first} to {last}",
    persist_result=False,
)
def backfill(
    pipeline: str, first: date, last: date, parallel: PositiveInt = 1, only_missing: bool = False
) -> BackfillReport:
    """Run a pipeline for all intervals that start on certain dates, each as a run of its deployment.

    Of several schedules, the first one's intervals. A backfill that was interrupted goes on when it is
    started again with the same dates.

    Args:
        pipeline: Name of the pipeline, which has a schedule.
        first: First local date.
        last: Last local date.
        parallel: How many runs there may be at once.
        only_missing: Leave out what is published already; otherwise it is done again.
    """
    with server() as client:
        deployment = deployment_of(client, pipeline)
        work = _Backfill(client, deployment, first, last, only_missing)
        if not workers_online(client, deployment.work_pool_name or ""):
            get_run_logger().warning("work pool %s has no worker: the runs wait", deployment.work_pool_name)
        work.run(parallel)
        report = work.report()
    rows = [
        one.model_dump(mode="json", exclude={"interval"}) | {"interval": one.interval.label}
        for one in report.intervals
    ]
    waited(create_table_artifact(rows, key="siftline-backfill", description=f"Backfill of {pipeline}."))
    failed = [one for one in report.intervals if one.state not in _GOOD]
    if failed:
        raise BackfillFailed(
            f"backfill of {pipeline}: {len(failed)} of {len(report.intervals)} intervals failed, "
            f"the first being {failed[0].interval.label} ({failed[0].state})",
            "see to the cause, then start it again: what is done is not done again",
        )
    work.end()
    return report


_PUBLISHED = "published before"
_GOOD = {"Completed", "CompletedWithRejects", "AlreadyPublished", _PUBLISHED}


class _Backfill:
    """The intervals of a backfill, and their runs on the server."""

    def __init__(
        self,
        client: SyncPrefectClient,
        deployment: DeploymentResponse,
        first: date,
        last: date,
        only_missing: bool,
    ) -> None:
        self._client = client
        self._deployment = deployment
        self._assignment = assignment_of(deployment.parameters)
        root = _home(deployment) / self._assignment.config.checkpoint.path
        self._ledger = Ledger(root, self._assignment.config.name)
        self.intervals = self._intervals(first, last)
        self._record = root / "backfills" / f"{deployment.name}.json"
        asked = {"first": str(first), "last": str(last), "only_missing": only_missing}
        self._state = self._begun(asked) or self._begin(asked)
        self._outcomes: dict[str, BackfilledInterval] = {}

    def run(self, parallel: int) -> None:
        """Start the runs, the oldest interval first, and wait for all of them."""
        waiting = [one for one in self.intervals if not self._left_out(one)][::-1]
        running: dict[UUID, Interval] = {}
        while waiting or running:
            while waiting and len(running) < parallel:
                interval = waiting.pop()
                running[self._start(interval).id] = interval
            for run_id in list(running):
                run = self._client.read_flow_run(run_id)
                if run.state is not None and run.state.is_final():
                    self._note(running.pop(run_id), run)
            if running:
                time.sleep(_SECONDS_BETWEEN)

    def report(self) -> BackfillReport:
        """Return what became of every interval."""
        return BackfillReport(
            pipeline=self._deployment.name,
            intervals=tuple(self._outcomes[interval.key] for interval in self.intervals),
        )

    def end(self) -> None:
        """Let the next one with the same dates start anew."""
        write_record(self._record, {**self._state, "done": True}, FORMAT_VERSION)

    def _intervals(self, first: date, last: date) -> list[Interval]:
        name, schedules = self._deployment.name, self._assignment.schedules
        if not schedules:
            raise ConfigError(
                f"pipeline {name}: has no schedule, so it has no intervals", "give it one, and apply it"
            )
        if first > last:
            raise ConfigError(f"backfill from {first} to {last}: ends before it starts", "exchange the dates")
        now = datetime.now(UTC)
        found = [one for one in intervals_of(schedules[0], first, last) if one.end <= now]
        if not found:
            raise ConfigError(
                f"backfill from {first} to {last}: no interval is over there", "correct the dates"
            )
        outputs = {self._assignment.batch(now, one).output.path for one in found[:2]}
        if len(outputs) < min(len(found), 2):
            raise ConfigError(
                f"pipeline {name}: all intervals have one output.path, so each would replace the one before",
                "put {{ date }} or {{ interval.start }} into it, and apply it",
            )
        return found

    def _begun(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Return the record of the same backfill, if one was interrupted."""
        try:
            record = read_record(self._record, FORMAT_VERSION)
        except (FileNotFoundError, NotADirectoryError, IntegrityError):
            return None
        if record.get("done") or {key: record.get(key) for key in asked} != asked:
            return None
        get_run_logger().info("the backfill that was interrupted goes on")
        return record

    def _begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        again = (
            []
            if asked["only_missing"]
            else [one.key for one in self.intervals if self._ledger.published(one)]
        )
        record = {**asked, "token": secrets.token_hex(4), "again": again, "done": False}
        self._record.parent.mkdir(parents=True, exist_ok=True)
        write_record(self._record, record, FORMAT_VERSION)
        return record

    def _left_out(self, interval: Interval) -> bool:
        if not self._state["only_missing"] or self._ledger.published(interval) is None:
            return False
        self._outcomes[interval.key] = self._told(interval, _PUBLISHED, None)
        return True

    def _start(self, interval: Interval) -> FlowRun:
        """Start the run of an interval; or find it, if this backfill has started it before."""
        given: dict[str, Any] = {"interval": interval.model_dump(mode="json")}
        if interval.key in self._state["again"]:
            given["fresh"] = True
        attempt = 0
        while True:
            run = self._client.create_flow_run_from_deployment(
                self._deployment.id,
                parameters=given,
                tags=["backfill"],
                idempotency_key=f"backfill {self._state['token']} {interval.key} {attempt}",
            )
            if run.state is None or not run.state.is_final() or run.state.name in _GOOD:
                return run
            attempt += 1  # it had failed before this backfill was interrupted

    def _note(self, interval: Interval, run: FlowRun) -> None:
        self._outcomes[interval.key] = self._told(interval, run.state_name or "Unknown", run.id)
        get_run_logger().info("%s: %s", interval.label, run.state_name)

    def _told(self, interval: Interval, state: str, run: UUID | None) -> BackfilledInterval:
        result = self._ledger.published(interval)
        return BackfilledInterval(
            interval=interval,
            state=state,
            flow_run_id=run,
            rows=result.rows if result else None,
            anomalies=result.anomalies if result else None,
        )


def _home(deployment: DeploymentResponse) -> Path:
    """Where the runs of a deployment work, which relative paths are relative to."""
    for step in deployment.pull_steps or []:
        for settings in step.values():
            if isinstance(settings, dict) and "directory" in settings:
                return Path(settings["directory"])
    return Path.cwd()
