"""Planning: the snapshot of the input, the job's id, the cut into chunks, and ``plan.json``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from siftline.batch_plan import BatchPlan, Feature, Snapshot, SourceFile
from siftline.config.batch import BatchConfig
from siftline.config.clusters import AddressCluster
from siftline.config.fields import Section
from siftline.detectors.kinds import changed_params
from siftline.errors import UnknownJob
from siftline.jobs.plans import read_plan
from siftline.progress import Note, Progress, emit
from siftline.source.chunks import cut_chunks
from siftline.source.csv.staging import csv_notes, open_csv
from siftline.source.files import ParquetFile, with_contents
from siftline.stages.inspection import Inspection, check_values, inspect_batch, planned_chunk_rows, widths_of
from siftline.storage.files import digest, file_digest, write_record
from siftline.storage.layout import CheckpointFiles, JobFiles, Version
from siftline.storage.lease import Lease
from siftline.storage.owned import WORK, refuse_links, remove_own, remove_publications

# To be raised when the same configuration and input would score differently.
_SCORING_VERSION = 1
_BUNDLE_CHUNKS = 16
_BUNDLE_ROWS = 10_000
_MIN_BUNDLES = 256


def plan_batch(
    config: BatchConfig, fresh: bool = False, lease: Lease | None = None, batch_divisor: int = 1
) -> BatchPlan:
    """Plan a job: take the input's snapshot, cut it, and write ``plan.json``.

    Unless `fresh`, the plan of an earlier run of the job is used again, so that committed receipts still fit
    its chunks; a fresh run that goes on uses its own. The lease is taken first. Batches `batch_divisor`
    times smaller than usual save memory.

    Raises
    ------
    InputError, StorageError
        As `inspect_batch`, and on reading CSV.
    JobBusy
        When another run is working on the job.
    """
    emit(Progress("plan"))
    inspection = inspect_batch(config)
    checkpoint = CheckpointFiles.at(config.checkpoint.path)
    parquet = _as_parquet(config, inspection, checkpoint.staged)
    snapshot = _snapshot(inspection, parquet)
    job_id = _job_id(config, inspection.features, snapshot)
    directory = checkpoint.job(job_id).directory
    refuse_links([directory, *JobFiles(directory).work()])
    if lease is not None:
        lease.take(directory)
    groups = [(number, *group) for number, file in enumerate(parquet) for group in enumerate(file.row_groups)]
    widths = inspection.widths or widths_of(config, inspection.features, parquet)
    said = [*inspection.notes, *csv_notes(inspection.csv, parquet), *widths.notes(config)]
    notes = tuple(dict.fromkeys(said))
    for note in notes:
        emit(Note(note))
    earlier = _earlier(directory, config, inspection.features, snapshot, groups, notes)
    goes_on = not fresh or (lease is not None and lease.again and earlier is not None and earlier.fresh)
    if earlier is not None and goes_on:
        return replace(earlier, batch_divisor=batch_divisor)
    _clear(directory, earlier)
    rows = inspection.chunk_rows or planned_chunk_rows(config, inspection.features, parquet, widths)
    chunks = cut_chunks(groups, rows)
    # Very many tiny chunks travel together; so do their receipts, which are then committed together.
    most = min(_BUNDLE_CHUNKS, len(chunks) // _MIN_BUNDLES, _BUNDLE_ROWS * len(chunks) // snapshot.rows)
    bundle = max(1, most)
    plan = BatchPlan(
        job_id=job_id,
        token=secrets.token_hex(4),
        config=config,
        snapshot=snapshot,
        features=inspection.features,
        chunks=chunks,
        bundle=bundle,
        commit_every=max(bundle, config.checkpoint.every),
        directory=directory,
        batch_divisor=batch_divisor,
        fresh=fresh,
        notes=notes,
    )
    _write(plan)
    return plan


def identify_job(config: BatchConfig, inspection: Inspection | None = None) -> tuple[str, int]:
    """Return the id and the rows of the job for the present input; raise errors as `plan_batch` does."""
    inspection = inspection or inspect_batch(config)
    parquet = _as_parquet(config, inspection, CheckpointFiles.at(config.checkpoint.path).staged)
    snapshot = _snapshot(inspection, parquet)
    return _job_id(config, inspection.features, snapshot), snapshot.rows


def _clear(directory: Path, earlier: BatchPlan | None) -> None:
    """Remove the work of earlier runs, but not the records of the runs themselves."""
    if earlier is not None:
        remove_publications(earlier.output.staged, earlier.job_id, earlier.token)
    remove_own(directory, WORK)


def _as_parquet(config: BatchConfig, inspection: Inspection, staged: Path) -> Sequence[ParquetFile]:
    content = config.source.verify == "content"
    if inspection.parquet:
        return [with_contents(file) for file in inspection.parquet] if content else inspection.parquet
    parquet = [open_csv(file, inspection.schema, staged, content) for file in inspection.csv]
    check_values(config, inspection.features, parquet)
    return parquet


def _snapshot(inspection: Inspection, parquet: Sequence[ParquetFile]) -> Snapshot:
    files = tuple(
        SourceFile(
            path=str(file.path.absolute()),
            size=file.size,
            mtime_ns=file.mtime_ns,
            footer=file.footer,
            contents=file.contents,
            rows=file.rows,
            origin=str(origin),
            staged=not inspection.parquet,
            casts=dict(inspection.casts.get(file.path, {})),
        )
        for origin, file in zip(inspection.files, parquet, strict=True)
    )
    schema = inspection.schema
    columns = {name: str(schema.field(name).type) for name in inspection.columns}
    return Snapshot(files=files, columns=columns, identity=digest([file.stamp for file in parquet]))


def _job_id(config: BatchConfig, features: Sequence[Feature], snapshot: Snapshot) -> str:
    detector = config.detector
    if detector.model is not None:
        fitted: dict[str, Any] = {"model": file_digest(Path(detector.model))}
    else:
        fitted = detector.model_dump(mode="json", include={"kind", "sample_rows", "seed"})
        fitted["params"] = changed_params(detector.kind, detector.params)
    columns = {*config.source.key, *(feature.column for feature in features)}
    unused = {"max_categories"} if config.preprocess.categorical != "onehot" else set()
    identity = {
        "scoring": [_SCORING_VERSION, version("scikit-learn"), version("numpy")],
        "snapshot": snapshot.identity,
        "columns": {name: snapshot.columns[name] for name in sorted(columns)},
        "key": config.source.key,
        "features": [feature.model_dump() for feature in features],
        "preprocess": config.preprocess.model_dump(mode="json", exclude=unused),
        "detector": fitted,
    }
    return digest(identity)[:16]


def _earlier(
    directory: Path,
    config: BatchConfig,
    features: tuple[Feature, ...],
    snapshot: Snapshot,
    row_groups: Sequence[tuple[int, int, int]],
    notes: tuple[str, ...],
) -> BatchPlan | None:
    """Return the plan of an earlier run of the job, with this run's configuration."""
    try:
        plan = read_plan(directory)
    except UnknownJob:
        return None
    # CSV staged for other columns is another file with the same row groups.
    if plan.chunks.row_groups() != [group for group in row_groups if group[2]]:
        return None
    current = replace(plan, config=config, snapshot=snapshot, features=features, notes=notes)
    if _anywhere(config).stated() != plan.config.stated():
        # The parts that change no score may differ: the last configuration counts.
        _write(current)
    return current


def _anywhere(config: BatchConfig) -> BatchConfig:
    """Return a configuration whose paths don't depend on the working directory."""

    def absolute(section: Section, *names: str) -> Section:
        paths = {name: getattr(section, name) for name in names}
        update = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
        return section.model_copy(update=update)

    update = {
        "source": absolute(config.source, "path"),
        "detector": absolute(config.detector, "model"),
        "checkpoint": absolute(config.checkpoint, "path"),
        "output": absolute(config.output, "path"),
    }
    cluster = config.cluster
    if isinstance(cluster, AddressCluster) and cluster.tls is not None:
        update["cluster"] = cluster.model_copy(update={"tls": absolute(cluster.tls, "ca", "cert", "key")})
    return config.model_copy(update=update)


def _write(plan: BatchPlan) -> None:
    record: Mapping[str, Any] = {
        "job_id": plan.job_id,
        "token": plan.token,
        "config": _anywhere(plan.config).stated(),
        "snapshot": plan.snapshot.model_dump(mode="json"),
        "features": [feature.model_dump() for feature in plan.features],
        "chunks": plan.chunks.to_lists(),
        "bundle": plan.bundle,
        "commit_every": plan.commit_every,
        "fresh": plan.fresh,
        "notes": plan.notes,
    }
    write_record(plan.files.plan, record, Version.PLAN)
