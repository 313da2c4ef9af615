"""Missed intervals: a server that was down starts no runs for that time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.runtime import deployment
from prefect.states import Scheduled

from siftline.config.schedules import Interval, Schedule, missed_intervals
from siftline.jobs.intervals import Ledger


def schedule_missed(schedule: Schedule, ledger: Ledger, present: Interval) -> None:
    """Start a run for every interval since the last known one that has none, due when the interval was."""
    known = [entry.interval.end for entry in ledger.entries()]
    before = [end for end in known if end < present.end]
    if not before or deployment.id is None:
        return
    found = missed_intervals(schedule, max(before), present.end, schedule.catch_up_limit)
    missed = [interval for interval in found if interval.end < present.end]
    if not missed:
        return
    try:
        with get_client(sync_client=True) as client:
            started = _start(client, UUID(deployment.id), missed)
        get_run_logger().info("%d missed intervals are made up for", started)
    except httpx.HTTPError as error:
        get_run_logger().warning("missed intervals are not made up for now: %s", type(error).__name__)


def _start(client: SyncPrefectClient, deployment_id: UUID, missed: list[Interval]) -> int:
    there = _due_times(client, deployment_id, missed)
    absent = [interval for interval in missed if interval.end not in there]
    for interval in absent:
        client.create_flow_run_from_deployment(
            deployment_id,
            parameters={"interval": interval.model_dump(mode="json")},
            state=Scheduled(scheduled_time=interval.end),
            idempotency_key=f"{deployment_id} {interval.key}",
            tags=["catch-up"],
        )
    return len(absent)


def _due_times(client: SyncPrefectClient, deployment_id: UUID, missed: list[Interval]) -> set[datetime]:
    """Return the due times of a deployment's runs on the server."""
    due = {"after_": missed[0].end, "before_": missed[-1].end}
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment_id]}}),
        flow_run_filter=FlowRunFilter.model_validate({"expected_start_time": due}),
    )
    return {run.expected_start_time for run in runs if run.expected_start_time is not None}
