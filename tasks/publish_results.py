"""The step that publishes the result."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from siftline import publish
from siftline.errors import StorageError
from siftline.history import remember
from siftline.lease import Lease
from siftline.report import report
from siftline.results import Manifest, open_results
from siftline.summary import top_rows
from siftline.types import BatchPlan, CombinedScores, DetectorRef, Receipts, ValidationReport
from tasks.progress import write_aside
from tasks.waiting import waited

_TOP = 10


@task(name="publish_results", cache_policy=NO_CACHE, persist_result=False)
def publish_results(
    plan: BatchPlan,
    detector: DetectorRef,
    receipts: Receipts,
    combined: CombinedScores,
    validation: ValidationReport,
    lease: Lease,
    complete: bool,
) -> Manifest:
    """Publish the staged result; see `siftline.publish.publish_results`."""
    manifest = publish.publish_results(
        plan, detector, receipts, combined, validation, flow_run.id, lease, complete
    )
    keep_in_history(plan, manifest)
    row = {
        "rows": manifest.rows,
        "rows failed": manifest.rows_failed,
        "chunks": manifest.chunks,
        "anomalies": manifest.anomalies,
        "threshold": manifest.threshold,
        "output": plan.config.output.path,
        "job": manifest.job_id,
    }
    write_aside("the table of the result", lambda: _show(row))
    write_aside("the report", lambda: _report(plan, manifest))
    return manifest


def keep_in_history(plan: BatchPlan, manifest: Manifest) -> None:
    """Add a publication to the history of its pipeline, once; without it, the publication is as good."""
    try:
        remember(plan.directory.parent.parent, manifest)
    except StorageError as error:
        get_run_logger().warning("the history of the publications could not be written: %s", error)


def _report(plan: BatchPlan, manifest: Manifest) -> None:
    top = top_rows(open_results(plan.config.output.path), _TOP)
    waited(create_markdown_artifact(report(manifest, top), key="siftline-report", description="The report."))


def _show(row: dict[str, Any]) -> None:
    waited(create_table_artifact([row], key="siftline-result", description="What was published."))
