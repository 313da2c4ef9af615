"""Batch detection: the pipeline from a configuration to a published result."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from siftline.config import BatchConfig
from siftline.detect import warm_up
from siftline.executor import open_executor, prepare_executor
from siftline.loading import resolve_config
from siftline.notify import completed_message, failed_message
from siftline.types import BatchResult
from tasks.combine_results import combine_results
from tasks.detect_chunks import detect_chunks
from tasks.fit_detector import fit_detector
from tasks.notify import notify
from tasks.plan_batch import plan_batch
from tasks.publish_results import publish_results
from tasks.validate_results import validate_results


@flow(name="batch-detection", persist_result=False)
def batch_detection(config: BatchConfig, fresh: bool = False) -> BatchResult:
    """Find the anomalies of a batch.

    Args:
        config: The batch: the rows to look at, what finds the anomalies, and where the result goes.
        fresh: Start over, even if an earlier run of the same job has left work that could be taken up.
    """
    started = time.monotonic()
    try:
        now = flow_run.scheduled_start_time or datetime.now(UTC)
        result = _detect(resolve_config(config, now), fresh, started)
    except Exception as error:
        notify(failed_message(config.name, error), config.notify)
        raise
    notify(completed_message(config.name, result), config.notify)
    return result


def _detect(config: BatchConfig, fresh: bool, started: float) -> BatchResult:
    prepare_executor(config.cluster)
    plan = plan_batch(config, fresh)
    with open_executor(config.cluster, warm_up) as executor:
        detector = fit_detector(plan, executor)
        receipts = detect_chunks(plan, detector, executor)
        combined = combine_results(plan, detector, receipts, executor)
    validation = validate_results(plan, receipts, combined)
    manifest = publish_results(plan, detector, combined, validation)
    return BatchResult(
        job_id=plan.job_id,
        flow_run_id=flow_run.id,
        state="Completed",
        rows=manifest.rows,
        chunks=manifest.chunks,
        chunks_reused=receipts.reused,
        chunks_computed=receipts.computed,
        rows_failed=manifest.rows_failed,
        anomalies=manifest.anomalies,
        threshold=manifest.threshold,
        output=config.output.path,
        wall_seconds=round(time.monotonic() - started, 3),
    )
