"""Publishing: the staged result becomes the result, all at once.

Data files get names that are never used again; the manifest, which says which of them count, is replaced
last, atomically. Until then readers see the previous result, whole, and from then on the new one, whole.
"""

from __future__ import annotations

import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from siftline.errors import IntegrityError, SourceError
from siftline.files import rename, write_record
from siftline.progress import Progress, report
from siftline.results import FORMAT_VERSION, MANIFEST, Manifest, read_manifest
from siftline.types import BatchPlan, CombinedScores, DetectorRef, PublishedFile, ValidationReport

_LIBRARIES = ("siftline", "scikit-learn", "numpy", "pyarrow", "dask", "distributed", "prefect")


def publish_results(
    plan: BatchPlan,
    detector: DetectorRef,
    combined: CombinedScores,
    validation: ValidationReport,
    flow_run_id: str | None = None,
) -> Manifest:
    """Publish a staged result and return its manifest.

    The files of the publication before are kept for readers that are still at them; older ones go.

    Raises
    ------
    StorageError
        When the output cannot be written; the previous result is then still the result.
    """
    report(Progress("publish", rows_total=plan.rows))
    output = Path(plan.config.output.path).absolute()
    previous = _previous(output)
    scores = _move(combined, combined.scores, "scores", output)
    anomalies = _move(combined, combined.anomaly_files, "anomalies", output)
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
        rows=plan.rows,
        rows_failed=plan.rows - combined.rows,
        chunks=len(plan.chunks),
        anomalies=combined.anomalies,
        threshold=combined.threshold,
        score_minimum=combined.summary.minimum,
        score_maximum=combined.summary.maximum,
        validation=validation,
        scores=scores,
        anomaly_files=anomalies,
        replaces=previous.publication if previous else None,
    )
    write_record(output / MANIFEST, manifest.model_dump(mode="json"), FORMAT_VERSION)
    shutil.rmtree(combined.staged, ignore_errors=True)
    _clean(output, {manifest.publication, manifest.replaces})
    return manifest


def _previous(output: Path) -> Manifest | None:
    try:
        return read_manifest(output)
    except (SourceError, IntegrityError):
        return None


def _move(
    combined: CombinedScores, files: tuple[PublishedFile, ...], kind: str, output: Path
) -> tuple[PublishedFile, ...]:
    home = f"{kind}/{combined.publication}"
    rename(Path(combined.staged) / kind, output / home)
    return tuple(file.model_copy(update={"name": f"{home}/{Path(file.name).name}"}) for file in files)


def _clean(output: Path, keep: set[str | None]) -> None:
    """Remove what no manifest that may still be read names."""
    for kind in ("scores", "anomalies"):
        for publication in (output / kind).iterdir():
            if publication.name not in keep:
                shutil.rmtree(publication, ignore_errors=True)
