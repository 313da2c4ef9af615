"""The step that publishes the result."""

from __future__ import annotations

import time
from functools import partial
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from siftline.batch_plan import BatchPlan
from siftline.config.batch import RetriesConfig
from siftline.config.schedules import Interval
from siftline.engine import Executor, run_with_retries
from siftline.jobs.history import read_history, remember
from siftline.jobs.live import LiveRecord, live_record
from siftline.jobs.results import Manifest, open_results
from siftline.notices.report import report
from siftline.notices.top_rows import group_sentences, top_rows
from siftline.report.page import ReportTask, draw_report
from siftline.shown import log_line
from siftline.stages import publish
from siftline.storage.lease import Lease
from siftline.tasks.adapters.artifacts import artifact_key, write_aside, written_beside
from siftline.tasks.adapters.aside import aside
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.retrying import RETRIES
from siftline.tasks.adapters.settings import changed_settings
from siftline.types import CombinedScores, DetectorRef, Receipts, ValidationReport

_TOP = 10
_REPORT = "report"
_SECONDS_TO_FIND = 5.0


@task(
    name="publish_results",
    task_run_name="publish_results",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def publish_results(
    plan: BatchPlan,
    detector: DetectorRef,
    receipts: Receipts,
    combined: CombinedScores,
    validation: ValidationReport,
    lease: Lease,
    complete: bool,
    interval: Interval | None,
    began: float,
    live: LiveRecord,
    drawing: Executor,
) -> Manifest:
    """Publish the staged result of a run that began then; see `siftline.stages.publish.publish_results`.

    The report is drawn by the executor `drawing`.
    """
    tag_task("batch_processing", plan.job_id)
    manifest = publish.publish_results(
        plan, detector, receipts, combined, validation, flow_run.id, lease, complete
    )
    keep_in_history(plan, manifest, interval, time.monotonic() - began, live.worker_memory)
    with written_beside("the table", lambda: _write_table(plan, manifest)):
        keep_report(plan, drawing, live)
    aside("the run's page has no report", lambda: _write_report(plan, manifest), None)
    return manifest


def keep_in_history(
    plan: BatchPlan,
    manifest: Manifest,
    interval: Interval | None,
    seconds: float | None = None,
    worker_memory: int | None = None,
) -> None:
    """Add a publication to the history of its pipeline, once; a failure is only logged.

    `seconds` is the duration of the run that published it, if that is this one.
    """
    label = interval.label if interval is not None else None
    history = plan.files.checkpoint.history(manifest.name)
    write = partial(remember, history, manifest, seconds, label, worker_memory)
    aside("the history of the publications could not be written", write, None)


def keep_report(plan: BatchPlan, drawing: Executor, live: LiveRecord | None = None) -> None:
    """Have the report of the current publication drawn, unless it has one; a failure is only logged.

    Without a live record it takes that of the job.
    """
    aside("report.html could not be written", lambda: _keep_report(plan, drawing, live), None)


def report_page(pipeline: str) -> str | None:
    """Return the address of this run's report, if it has one."""
    pages = PREFECT_UI_URL.value()
    if pages is None or flow_run.id is None:
        return None
    of_this_run = ArtifactFilterFlowRunId(any_=[UUID(flow_run.id)])
    wanted = ArtifactFilter(
        key=ArtifactFilterKey(any_=[artifact_key(_REPORT, pipeline)]), flow_run_id=of_this_run
    )
    http = {"timeout": _SECONDS_TO_FIND}
    with (
        changed_settings(client={"max_retries": 0}),
        get_client(httpx_settings=http, sync_client=True) as client,
    ):
        found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)
    return f"{pages}/artifacts/artifact/{found[0].id}" if found else None


def _keep_report(plan: BatchPlan, drawing: Executor, live: LiveRecord | None) -> None:
    if plan.output.report.exists():
        return
    live = live or live_record(plan.directory).read_or(None)
    history = read_history(plan.files.checkpoint.history(plan.config.name))
    task = ReportTask(plan.output.root, live, tuple(history))
    (drawn,) = run_with_retries(drawing, draw_report, [task], RetriesConfig(attempts=1))
    if not drawn.result():
        get_run_logger().info("no report.html without matplotlib: pip install 'siftline[report]'")


def _write_table(plan: BatchPlan, manifest: Manifest) -> None:
    """Create the table of a publication on the run's page."""
    row = {
        "rows": manifest.rows,
        "rows failed": manifest.rows_failed,
        "chunks": manifest.chunks,
        "anomalies": manifest.anomaly_count,
        "threshold": manifest.threshold,
        "output": log_line(plan.config.output.path),
        "job": manifest.job_id,
    }
    table = artifact_key("result", manifest.name)
    resolve(create_table_artifact([row], key=table, description="Result as a table."))


def _write_report(plan: BatchPlan, manifest: Manifest) -> None:
    """Create the report of a publication on the run's page."""
    results = open_results(plan.config.output.path)
    findings = results.findings
    quality = str(findings.quality) if findings is not None and findings.quality is not None else None
    text = report(manifest, top_rows(results, _TOP), group_sentences(results, _TOP), quality)
    page = artifact_key(_REPORT, manifest.name)
    create = partial(create_markdown_artifact, text, key=page, description="The result, with reasons.")
    write_aside("the report", lambda: resolve(create()))
