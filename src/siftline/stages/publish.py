"""Publishing: the staged result becomes the result, all at once.

A publication is a directory whose name is never used again: the data files, and the manifest that names them.
One link leads to it; its replacement shows readers the new result in place of the previous one, both whole.
"""

from __future__ import annotations

import platform
import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from siftline.batch_plan import BatchPlan
from siftline.errors import JobBusy, OutputConflict
from siftline.jobs.outputs import check_owner, is_former
from siftline.jobs.results import Manifest, manifest_record
from siftline.jobs.verification import file_damages, named_files
from siftline.progress import Incident, Progress, emit
from siftline.storage.files import link, rename
from siftline.storage.layout import OutputFiles
from siftline.storage.lease import Lease
from siftline.storage.locks import locked
from siftline.storage.owned import FORMER, PUBLICATION, remove_own, remove_publications, temporaries_of
from siftline.storage.records import PublishedFile
from siftline.types import CombinedScores, DetectorRef, Receipts, ValidationReport

# Sections of the configuration that affect a result, but not the job.
_SECTIONS = ("name", "threshold", "tolerate", "validation")
# Links and manifests that a killed run was about to show.
_BEGUN = temporaries_of([*OutputFiles.SHOWN, ".current"])
_DIGESTED_BYTES = 1 << 28
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
    OutputConflict
        When another pipeline has published there meanwhile; finished chunks are kept.
    """
    emit(Progress("publish", rows_total=plan.rows))
    output = plan.output.root
    with locked(plan.output.publishing, lock_seconds) as alone:
        if not alone:
            raise JobBusy(f"{output}: another run has been publishing there for a while", "end that run")
        if lease is not None:
            lease.check()
        earlier = _published(plan) if complete else None
        if earlier is not None and _of_this_start(earlier, plan) and _damage(plan, earlier) is None:
            remove_publications(plan.output.staged, plan.job_id, plan.token)
            return earlier
        previous = _previous(plan, combined)
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
            anomaly_count=combined.anomalies,
            threshold=combined.threshold,
            score_minimum=combined.summary.minimum,
            score_maximum=combined.summary.maximum,
            validation=validation,
            scores=_placed(combined.scores, combined),
            anomaly_files=_placed(combined.anomaly_files, combined),
            failed_files=_placed(combined.failed_files, combined),
            replaces=previous.publication if previous else None,
            key=combined.key,
            asked=combined.asked,
            notes=plan.notes,
        )
        _keep(manifest, Path(combined.staged), plan.output)
        _show(manifest, plan.output)
        _clean(plan.output, {manifest.publication, manifest.replaces})
    return manifest


def _previous(plan: BatchPlan, combined: CombinedScores) -> Manifest | None:
    """Return the manifest to be replaced; without a right to the output, remove what was staged there."""
    previous = manifest_record(plan.output.root).read_or(None)
    try:
        check_owner(plan.output, plan.config.name, previous)
    except OutputConflict:
        remove_publications(plan.output.staged, plan.job_id, plan.token)
        raise
    return previous


def published_already(plan: BatchPlan) -> Manifest | None:
    """Return the published manifest, if it is the complete and intact result of this job.

    All files must be there in their sizes, and have their digests if reading them all takes a second or so.
    """
    manifest = _published(plan)
    damage = _damage(plan, manifest) if manifest is not None else None
    if damage is None:
        return manifest
    emit(Incident("damaged", f"the published result is published anew: {damage}"))
    return None


def _damage(plan: BatchPlan, manifest: Manifest) -> str | None:
    size = sum(file.size for file in named_files(manifest))
    return next(file_damages(plan.output.root, manifest, digests=size <= _DIGESTED_BYTES), None)


def _published(plan: BatchPlan) -> Manifest | None:
    """Return the published manifest, if it is of this job as configured, and complete."""
    manifest = manifest_record(plan.output.root).read_or(None)
    if manifest is None or manifest.job_id != plan.job_id or not manifest.complete:
        return None
    if plan.fresh and not _of_this_start(manifest, plan):
        return None
    if _asked(manifest.config) != _asked(plan.config.stated()):
        return None
    return manifest


def _of_this_start(manifest: Manifest, plan: BatchPlan) -> bool:
    return manifest.publication.startswith(f"{plan.job_id}-{plan.token}-")


def _asked(config: dict[str, Any]) -> list[Any]:
    source = config["source"]
    described = (source.get("label"), source.get("timestamp"), config["output"]["columns"])
    return [*(config.get(section) for section in _SECTIONS), *described]


def _placed(files: tuple[PublishedFile, ...], combined: CombinedScores) -> tuple[PublishedFile, ...]:
    """Return staged files under their names within the output."""
    home = f"{OutputFiles.PUBLICATIONS}/{combined.publication}"
    return tuple(file.model_copy(update={"name": f"{home}/{file.name}"}) for file in files)


def _keep(manifest: Manifest, staged: Path, files: OutputFiles) -> None:
    """Move a staged result to the publications, with its manifest; do nothing if it is there."""
    home = files.publications / manifest.publication
    if not home.exists():
        manifest_record(staged).write(manifest)
        rename(staged, home)


def _show(manifest: Manifest, files: OutputFiles) -> None:
    """Make a publication the current one, by links of which one decides."""
    home = files.publications / manifest.publication
    shown = [name for name in files.SHOWN if (home / name).exists()]
    links = [(files.root / name, f"{files.current.name}/{name}") for name in shown]
    links.append((files.current, f"{files.PUBLICATIONS}/{manifest.publication}"))
    if files.manifest.exists() and not files.manifest.is_symlink():
        links.reverse()  # former layout: its readers go by the manifest, no link leads anywhere yet
    for path, target in links:
        if path.name == files.SCORES:
            former = [files.root / kind for kind in files.FORMER]
            _set_aside(files, *(path for path in former if path.is_dir() and is_former(path)))
        _set_aside(files, path)
        if not link(path, target):  # a file system without links has the manifest alone
            manifest_record(files.root).write(manifest)
            return
    for name in files.SHOWN:
        if name not in shown:
            (files.root / name).unlink(missing_ok=True)


def _set_aside(files: OutputFiles, *paths: Path) -> None:
    """Move directories where links belong, of the former layout or copied, to where they are removed."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            rename(path, files.publications / f"former-{path.name}-{secrets.token_hex(4)}")


def _clean(files: OutputFiles, keep: set[str | None]) -> None:
    """Remove publications without readers, and what killed runs left unfinished."""
    remove_own(files.root.resolve(), _BEGUN)  # the output itself may be a link
    remove_own(files.publications, PUBLICATION, keep)
    remove_own(files.publications, FORMER)
