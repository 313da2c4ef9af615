"""Publishing: the staged result becomes the result, all at once.

Data files get names that are never used again; the manifest, which says which of them count, is replaced
last, atomically. Until then readers see the previous result, whole, and from then on the new one, whole.
"""

from __future__ import annotations

import platform
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from siftline.batch_plan import BatchPlan
from siftline.errors import JobBusy
from siftline.jobs.results import Manifest, manifest_record
from siftline.progress import Progress, emit
from siftline.storage.files import rename
from siftline.storage.layout import OutputFiles
from siftline.storage.lease import Lease
from siftline.storage.locks import locked
from siftline.storage.records import PublishedFile
from siftline.types import CombinedScores, DetectorRef, Receipts, ValidationReport

# Sections of the configuration that affect a result, but not the job.
_SECTIONS = ("name", "threshold", "tolerate", "validation")
_LIBRARIES = ("siftline", "scikit-learn", "numpy", "pyarrow", "dask", "distributed", "prefect")


def publish_results(
    plan: BatchPlan,
    detector: DetectorRef,
    receipts: Receipts,
    combined: CombinedScores,
    validation: ValidationReport,
    flow_run_id: str | None = None,
    lease: Lease | None = None,
    complete: bool = True,
    lock_seconds: float = 60.0,
) -> Manifest:
    """Publish a staged result and return its manifest.

    The files of the previous publication are kept for its readers; older ones are removed.

    Raises
    ------
    StorageError
        When the output cannot be written; the previous result then remains.
    LeaseLost, JobBusy
        When another run has taken over the job; when one is publishing there for more than `lock_seconds`.
    """
    emit(Progress("publish", rows_total=plan.rows))
    output = Path(plan.config.output.path).absolute()
    with locked(plan.output.publishing, lock_seconds) as alone:
        if not alone:
            raise JobBusy(f"{output}: another run has been publishing there for a while", "end that run")
        if lease is not None:
            lease.check()
        earlier = published_already(plan) if complete else None
        if earlier is not None and _of_this_start(earlier, plan):
            shutil.rmtree(combined.staged, ignore_errors=True)
            return earlier
        previous = manifest_record(output).read_or(None)
        manifest = Manifest(
            name=plan.config.name,
            job_id=plan.job_id,
            publication=combined.publication,
            flow_run_id=flow_run_id,
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=plan.config.stated(),
            snapshot=plan.snapshot.model_dump(mode="json"),
            features=tuple(feature.name for feature in plan.features),
            detector=detector.model_dump(mode="json"),
            versions={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
            complete=complete,
            rows=plan.rows,
            rows_failed=receipts.rows_failed,
            chunks=len(plan.chunks),
            chunks_failed=receipts.failed,
            anomalies=combined.anomalies,
            threshold=combined.threshold,
            score_minimum=combined.summary.minimum,
            score_maximum=combined.summary.maximum,
            validation=validation,
            scores=_move(combined, combined.scores, "scores", output),
            anomaly_files=_move(combined, combined.anomaly_files, "anomalies", output),
            failed_files=_move(combined, combined.failed_files, "failed", output),
            replaces=previous.publication if previous else None,
        )
        # Empty by now; removed first, so that a run killed after writing the manifest leaves nothing to do.
        shutil.rmtree(combined.staged, ignore_errors=True)
        manifest_record(output).write(manifest)
        _clean(output, {manifest.publication, manifest.replaces})
    return manifest


def published_already(plan: BatchPlan) -> Manifest | None:
    """Return the published manifest, if it is the complete result of this job."""
    output = Path(plan.config.output.path).absolute()
    manifest = manifest_record(output).read_or(None)
    if manifest is None or manifest.job_id != plan.job_id or not manifest.complete:
        return None
    if plan.fresh and not _of_this_start(manifest, plan):
        return None
    if _asked(manifest.config) != _asked(plan.config.stated()):
        return None
    files = (*manifest.scores, *manifest.anomaly_files, *manifest.failed_files)
    try:
        intact = all((output / file.name).stat().st_size == file.size for file in files)
    except OSError:
        return None
    return manifest if intact else None


def _of_this_start(manifest: Manifest, plan: BatchPlan) -> bool:
    return manifest.publication.startswith(f"{plan.job_id}-{plan.token}-")


def _asked(config: dict[str, Any]) -> list[Any]:
    return [*(config.get(section) for section in _SECTIONS), config["output"]["columns"]]


def _move(
    combined: CombinedScores, files: tuple[PublishedFile, ...], kind: str, output: Path
) -> tuple[PublishedFile, ...]:
    if not files:
        return ()
    home = f"{kind}/{combined.publication}"
    rename(Path(combined.staged) / kind, output / home)
    return tuple(file.model_copy(update={"name": f"{home}/{Path(file.name).name}"}) for file in files)


def _clean(output: Path, keep: set[str | None]) -> None:
    """Remove publications without readers, and manifests that killed runs left unfinished."""
    files = OutputFiles(output)
    for begun in output.glob(f".{files.manifest.name}.*.tmp"):
        with suppress(OSError):
            begun.unlink()
    for kind in files.KINDS:
        for publication in (output / kind).glob("*"):
            if publication.name not in keep:
                shutil.rmtree(publication, ignore_errors=True)
