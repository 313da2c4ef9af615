"""A planned batch, scored, validated and published."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext

from prefect.runtime import flow_run

from siftline.batch_plan import BatchPlan
from siftline.config.clusters import LocalCluster, with_memory
from siftline.engine import Executor, ForkedExecutor, SerialExecutor, open_executor
from siftline.errors import PartDamaged
from siftline.flows.run.admission import Allocation, admitted
from siftline.flows.run.lifecycle import Run
from siftline.jobs.results import Manifest
from siftline.report.page import prepare_report
from siftline.resources.allocation import allotted, needs_no_cluster
from siftline.stages.publish import published_already
from siftline.stages.scoring import warm_up
from siftline.tasks.combine_results import combine_results
from siftline.tasks.detect_chunks import detect_chunks
from siftline.tasks.fit_detector import fit_detector
from siftline.tasks.publish_results import keep_in_history, keep_report, publish_results
from siftline.tasks.validate_results import validate_results
from siftline.types import BatchResult, CombinedScores, DetectorRef, Receipts, ResultState

# Divides the rows of a chunk's batches in a safer run.
SAFER_DIVISOR = 4
# A disk that damages more files than this is unusable.
_REPAIRS = 2


def already_published(plan: BatchPlan, run: Run) -> BatchResult | None:
    """Return the result of the job, if it is published already."""
    manifest = published_already(plan)
    if manifest is None:
        return None
    keep_in_history(plan, manifest, run.interval)  # the run that published it may have died before it did
    keep_report(plan, SerialExecutor())
    return _result(plan, manifest, "AlreadyPublished", 0, run)


def process_batch(plan: BatchPlan, run: Run, *, safer: bool = False, partial: bool = False) -> BatchResult:
    """Do the rest of a job that the run holds, and publish its result.

    `safer` scores one chunk at a time on each worker; `partial` publishes the chunks of earlier runs only.
    """
    run.monitor.begin(plan, run.interval.label if run.interval else None)
    with ExitStack() as process:
        with admitted(plan) as allocation, _cluster(plan, allocation, safer) as executor:
            run.monitor.allot(str(allocation))
            run.started += allocation.waited
            drawing = process.enter_context(_drawing(plan))
            detector = fit_detector(plan, executor)
            receipts, combined = _detect(plan, detector, executor, run, partial)
        validation = run.retried(validate_results, "result_validation")(plan, receipts, combined, partial)
        publish = run.retried(publish_results)
        manifest = publish(
            plan,
            detector,
            receipts,
            combined,
            validation,
            run.lease,
            not partial,
            run.interval,
            run.started,
            run.monitor.record(),
            drawing,
        )
    return _result(plan, manifest, manifest.state, receipts.computed, run)


def _drawing(plan: BatchPlan) -> AbstractContextManager[Executor]:
    """Return what draws the report: a process that imports meanwhile, or this one if the job has no other."""
    if isinstance(plan.config.cluster, LocalCluster):
        return closing(ForkedExecutor(None, prepare_report, worker=False))
    return nullcontext(SerialExecutor())


def _cluster(plan: BatchPlan, allocation: Allocation, safer: bool) -> AbstractContextManager[Executor]:
    """Return the executor of an allocation."""
    sized = with_memory(plan.config.cluster, plan.config.resources)
    cluster = allotted(sized, allocation.workers, allocation.wanted)
    if safer and isinstance(cluster, LocalCluster):
        cluster = cluster.model_copy(update={"threads": 1})
    return open_executor(
        cluster,
        functools.partial(warm_up, plan.config.detector.kind, plan.rows),
        slots=allocation.shared_slots(plan),
        permit=allocation.permit,
        forked=needs_no_cluster(plan.config, allocation.wanted),
    )


def _detect(
    plan: BatchPlan, detector: DetectorRef, executor: Executor, run: Run, partial: bool
) -> tuple[Receipts, CombinedScores]:
    """Detect and combine; detect again what the disk damaged in between."""
    repairs = 0
    while True:
        receipts = detect_chunks(plan, detector, executor, run.lease, partial)
        try:
            return receipts, combine_results(plan, detector, receipts, executor)
        except PartDamaged:
            repairs += 1
            if repairs > _REPAIRS:
                raise


def _result(plan: BatchPlan, manifest: Manifest, state: ResultState, computed: int, run: Run) -> BatchResult:
    return BatchResult(
        name=manifest.name,
        job_id=plan.job_id,
        flow_run_id=flow_run.id,
        state=state,
        **manifest.counts,
        chunks_reused=manifest.chunks - len(manifest.chunks_failed) - computed,
        chunks_computed=computed,
        chunks_failed=len(manifest.chunks_failed),
        output=plan.config.output.path,
        wall_seconds=round(time.monotonic() - run.started, 3),
    )
