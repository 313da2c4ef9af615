"""The step that publishes the result."""

from __future__ import annotations

from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL, temporary_settings

from siftline.batch_plan import BatchPlan
from siftline.errors import StorageError
from siftline.jobs.history import remember
from siftline.jobs.results import Manifest, open_results
from siftline.notices.report import report
from siftline.notices.top_rows import top_rows
from siftline.stages import publish
from siftline.storage.lease import Lease
from siftline.tasks.adapters.artifacts import artifact_key, write_aside
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.retrying import RETRIES
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
) -> Manifest:
    """Publish the staged result; see `siftline.stages.publish.publish_results`."""
    tag_task("batch_processing")
    manifest = publish.publish_results(
        plan, detector, receipts, combined, validation, flow_run.id, lease, complete
    )
    keep_in_history(plan, manifest)
    write_aside("the report", lambda: _show(plan, manifest))
    return manifest


def keep_in_history(plan: BatchPlan, manifest: Manifest) -> None:
    """Add a publication to the history of its pipeline, once; a failure is only logged."""
    try:
        remember(plan.files.checkpoint.history(manifest.name), manifest)
    except StorageError as error:
        get_run_logger().warning("the history of the publications could not be written: %s", error)


def report_page(pipeline: str) -> str | None:
    """Return the address of this run's report; None if the API does not answer soon."""
    pages = PREFECT_UI_URL.value()
    if pages is None or flow_run.id is None:
        return None
    of_this_run = ArtifactFilterFlowRunId(any_=[UUID(flow_run.id)])
    wanted = ArtifactFilter(
        key=ArtifactFilterKey(any_=[artifact_key(_REPORT, pipeline)]), flow_run_id=of_this_run
    )
    http = {"timeout": _SECONDS_TO_FIND}
    try:
        with (
            temporary_settings({"client.max_retries": 0}),
            get_client(httpx_settings=http, sync_client=True) as client,
        ):
            found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)
    except Exception as error:  # noqa: BLE001  whatever reaching the API raises
        get_run_logger().warning("the report's page is not known: %s", type(error).__name__)
        return None
    return f"{pages}/artifacts/artifact/{found[0].id}" if found else None


def _show(plan: BatchPlan, manifest: Manifest) -> None:
    """Create the table and the report of a publication on the run's page."""
    row = {
        "rows": manifest.rows,
        "rows failed": manifest.rows_failed,
        "chunks": manifest.chunks,
        "anomalies": manifest.anomaly_count,
        "threshold": manifest.threshold,
        "output": plan.config.output.path,
        "job": manifest.job_id,
    }
    text = report(manifest, top_rows(open_results(plan.config.output.path), _TOP))
    table, page = artifact_key("result", manifest.name), artifact_key(_REPORT, manifest.name)
    resolve(create_table_artifact([row], key=table, description="Result as a table."))
    resolve(create_markdown_artifact(text, key=page, description="The result, with reasons."))
