"""The steps of a batch, from its configuration to the published result."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from prefect.runtime import flow_run

from flows.run.main_module import spare_children_prefect
from siftline.config.batch import BatchConfig, RetriesConfig
from siftline.config.clusters import Cluster, LocalCluster
from siftline.engine.executor import Executor, open_executor, prepare_executor
from siftline.errors import PartDamaged
from siftline.jobs.results import Manifest
from siftline.stages.publish import published_already
from siftline.stages.scoring import warm_up
from siftline.storage.lease import Lease
from siftline.types import BatchPlan, BatchResult, CombinedScores, DetectorRef, Receipts
from tasks.adapters.retrying import retried
from tasks.combine_results import combine_results
from tasks.detect_chunks import detect_chunks
from tasks.fit_detector import fit_detector
from tasks.plan_batch import plan_batch
from tasks.publish_results import keep_in_history, publish_results
from tasks.validate_results import validate_results

# A disk that damages files faster than they are computed again is not to be worked with.
_REPAIRS = 2
# Of how many times fewer rows the batches are with safer resources.
_SAFER_BLOCKS = 4


def run_pipeline(
    config: BatchConfig,
    lease: Lease,
    *,
    fresh: bool = False,
    safer: bool = False,
    partial: bool = False,
    begin: Callable[[BatchPlan], None] = lambda plan: None,
    validation_retries: RetriesConfig | None = None,
) -> BatchResult:
    """Do a job, or what is left of it.

    Parameters
    ----------
    config : BatchConfig
        With its templates filled in.
    lease : Lease
        Open; the job is taken with it.
    fresh : bool
        Give up what earlier runs of the job have done, and publish even if it is published already.
    safer : bool
        Take less memory: one chunk at a time for each worker, and each chunk in quarters.
    partial : bool
        Score nothing, and publish what earlier runs have done.
    begin : callable, optional
        Called with the plan, when there is something to do.
    validation_retries : RetriesConfig, optional
        How often the validation is tried.
    """
    started = time.monotonic()
    spare_children_prefect()
    prepare_executor(config.cluster)
    plan = plan_batch(config, fresh, lease, _SAFER_BLOCKS if safer else 1)
    done = published_already(plan)
    if done is not None:
        keep_in_history(plan, done)  # the run that published it may not have got to it
        return _result(plan, done, "AlreadyPublished", 0, started)
    begin(plan)
    cluster = _safer(config.cluster) if safer else config.cluster
    with open_executor(cluster, functools.partial(warm_up, config.detector.kind, plan.rows)) as executor:
        detector = fit_detector(plan, executor)
        receipts, combined = _detect(plan, detector, executor, lease, partial)
    validation = retried(validate_results, validation_retries)(plan, receipts, combined, partial)
    manifest = publish_results(plan, detector, receipts, combined, validation, lease, not partial)
    return _result(plan, manifest, manifest.state, receipts.computed, started)


def _safer(cluster: Cluster) -> Cluster:
    return cluster.model_copy(update={"threads": 1}) if isinstance(cluster, LocalCluster) else cluster


def _detect(
    plan: BatchPlan, detector: DetectorRef, executor: Executor, lease: Lease, partial: bool
) -> tuple[Receipts, CombinedScores]:
    """Detect and combine, and do again what of it was damaged on disk in between."""
    repairs = 0
    while True:
        receipts = detect_chunks(plan, detector, executor, lease, partial)
        try:
            return receipts, combine_results(plan, detector, receipts, executor)
        except PartDamaged:
            repairs += 1
            if repairs > _REPAIRS:
                raise


def _result(plan: BatchPlan, manifest: Manifest, state: str, computed: int, started: float) -> BatchResult:
    return BatchResult(
        name=manifest.name,
        job_id=plan.job_id,
        flow_run_id=flow_run.id,
        state=state,
        rows=manifest.rows,
        chunks=manifest.chunks,
        chunks_reused=manifest.chunks - len(manifest.chunks_failed) - computed,
        chunks_computed=computed,
        chunks_failed=len(manifest.chunks_failed),
        rows_failed=manifest.rows_failed,
        anomalies=manifest.anomalies,
        threshold=manifest.threshold,
        output=plan.config.output.path,
        wall_seconds=round(time.monotonic() - started, 3),
    )
