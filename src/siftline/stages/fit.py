"""Fitting: one detector per job, on the sample, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from siftline.batch_plan import BatchPlan
from siftline.detectors.fitted import load_model
from siftline.detectors.kinds import lacking
from siftline.detectors.preprocess import capped
from siftline.engine import Executor, run_one
from siftline.errors import StorageError
from siftline.progress import Incident, Note, Progress, emit
from siftline.stages.training import fit_on_sample, sample_quantile
from siftline.storage.files import file_digest
from siftline.storage.layout import Version
from siftline.storage.owned import plain_name
from siftline.storage.records import RecordFile
from siftline.system.signals import Stop
from siftline.types import DetectorRef


def fit_detector(
    plan: BatchPlan, executor: Executor, asked: Callable[[], bool] = lambda: False
) -> DetectorRef:
    """Fit a job's detector on a worker, unless an earlier run did or ``detector.model`` names one.

    Raises
    ------
    FeatureError, ModelError
        When a feature is unusable in the sample; when the estimator refuses it.
    Cancelled
        Some seconds after `asked` is true.
    """
    slower = lacking(plan.config.detector.kind, plan.rows)
    if slower is not None:
        emit(Incident("slower", slower))
    retries, rule, stop = plan.config.retries, plan.config.threshold, Stop(asked=asked)
    ref = _earlier(plan)
    if ref is None:
        ref = _given(plan)
        if ref is None:
            emit(Progress("fit", rows_total=plan.rows))
            ref = run_one(executor, fit_on_sample, plan, retries, stop=stop)
        _record(plan).write(ref)
    _say_capped(plan, ref)
    threshold = rule.score
    if rule.quantile is not None:
        threshold = run_one(executor, sample_quantile, (plan, ref), retries, stop=stop)
    return ref.model_copy(update={"threshold": threshold})


def _say_capped(plan: BatchPlan, ref: DetectorRef) -> None:
    """Say which features' rarer values share a column, unless the plan did."""
    said = "\n".join(plan.notes)
    for name, levels in ref.capped.items():
        if f"feature {name} has" not in said:
            emit(Note(capped(name, f"{levels:,}", plan.config.preprocess.max_categories)))


def _given(plan: BatchPlan) -> DetectorRef | None:
    model = plan.config.detector.model
    if model is None:
        return None
    path = Path(model).absolute()
    kind = load_model(path).kind
    return DetectorRef(kind=kind, path=str(path), model_digest=file_digest(path), sample_rows=0)


def _earlier(plan: BatchPlan) -> DetectorRef | None:
    try:
        ref = _record(plan).read()
        # Where it must be, whatever path is recorded.
        given = plan.config.detector.model
        path = Path(given).absolute() if given else plan.files.model / plain_name(f"{ref.model_digest}.skops")
        intact = file_digest(path) == ref.model_digest
    except (OSError, StorageError, ValueError):
        return None
    return ref.model_copy(update={"path": str(path)}) if intact else None


def _record(plan: BatchPlan) -> RecordFile[DetectorRef]:
    return RecordFile(plan.files.detector, DetectorRef, Version.DETECTOR)
