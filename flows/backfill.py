"""Backfill: runs of a pipeline for intervals of the past, oldest first, a few at a time."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import PositiveInt

from siftline.errors import BackfillFailed
from siftline.flows.control.backfilling import BackfillReport, plan_backfill, run_intervals
from siftline.flows.server import deployment_of, server, workers_online
from siftline.tasks.adapters.artifacts import artifact_key
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.result_json import RESULT_JSON


@flow(
    name="backfill",
    flow_run_name="{pipeline} {first} to {last}",
    persist_result=True,
    result_serializer=RESULT_JSON,
)
def backfill(
    pipeline: str, first: date, last: date, parallel: PositiveInt = 1, only_missing: bool = False
) -> BackfillReport:
    """Run a pipeline for all intervals that start between two dates, each as a run of its deployment.

    With several schedules, the intervals are those of the first. An interrupted backfill continues when it
    is started again with the same dates.

    Args:
        pipeline: Name of a pipeline with a schedule.
        first: First local date.
        last: Last local date.
        parallel: Number of runs at the same time.
        only_missing: Skip intervals that are already published. Otherwise they are done again.
    """
    with server() as client:
        deployment = deployment_of(client, pipeline)
        if not workers_online(client, deployment.work_pool_name):
            get_run_logger().warning("work pool %s has no worker: the runs wait", deployment.work_pool_name)
        plan = plan_backfill(deployment, first, last, only_missing)
        report = run_intervals(client, plan, parallel)
    key = artifact_key("backfill", pipeline)
    resolve(create_table_artifact(report.table(), key=key, description=f"Backfill of {pipeline}."))
    failed = [one for one in report.intervals if not one.good]
    if failed:
        raise BackfillFailed(
            f"backfill of {pipeline}: {len(failed)} of {len(report.intervals)} intervals failed, "
            f"the first being {failed[0].interval.label} ({failed[0].state})",
            "fix the cause, then start it again: finished intervals are not repeated",
            tuple(report.table()),
        )
    plan.finish()
    return report
