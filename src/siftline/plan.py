"""Planning: what the input is, whether the job can be done at all, and how it is cut."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from siftline.chunks import chunk_rows, cut_chunks, slots_and_memory
from siftline.config import BatchConfig, SerialCluster
from siftline.detectors import DETECTORS, make_estimator
from siftline.errors import (
    ConfigError,
    FeatureError,
    IntegrityError,
    ModelError,
    OutputConflict,
    SourceError,
    storage_error,
)
from siftline.files import digest, file_digest, read_record, write_record
from siftline.models import load_model
from siftline.preprocess import TIME_PERIODS, is_categorical, is_numeric
from siftline.progress import Progress, report
from siftline.results import MANIFEST, read_manifest
from siftline.source import ParquetFile, find_files, open_parquet
from siftline.staging import csv_schema, stage_csv
from siftline.types import BatchPlan, ChunkTable, Feature, Snapshot, SourceFile

FORMAT_VERSION = 1
# Raise it when the same configuration and input would score differently.
_SCORING_VERSION = 1
_RESERVED_NAMES = ("score", "label", "rank", "reasons")
_PEAK_COPIES = 8


@dataclass(frozen=True)
class Inspection:
    """What can be known of a job without doing any of its work."""

    files: tuple[Path, ...]
    format: str
    schema: pa.Schema
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    rows: int | None
    chunk_rows: int | None


def inspect_batch(config: BatchConfig) -> Inspection:
    """Check everything that can be checked without writing anything.

    Parameters
    ----------
    config : BatchConfig
        With its templates filled in.

    Returns
    -------
    Inspection
        `rows` is None for CSV, whose rows are not known before it is read.

    Raises
    ------
    InputError
        On the first thing that makes the job impossible.
    StorageError
        When the output or the checkpoint cannot be written.
    """
    files, kind = find_files(config.source)
    parquet = [open_parquet(file) for file in files] if kind == "parquet" else []
    schema = parquet[0].schema if parquet else csv_schema(files[0])
    features = _features(config, schema)
    columns = _columns(config, features, schema)
    for file in files[1:]:
        _check_same(
            file, files[0], open_parquet(file).schema if parquet else csv_schema(file), schema, columns
        )
    _check_detector(config)
    _check_output(config)
    rows = None
    if parquet:
        _check_values(config, features, parquet)
        rows = sum(file.metadata.num_rows for file in parquet)
    return Inspection(
        tuple(files), kind, schema, features, columns, rows, rows and _chunk_rows(config, features, rows)
    )


def plan_batch(config: BatchConfig, fresh: bool = False) -> BatchPlan:
    """Plan a job: take the input's snapshot, cut it, and write ``plan.json``.

    The plan of an earlier run of the same job is taken up again, with its chunks, so that what that run
    committed still fits.

    Parameters
    ----------
    config : BatchConfig
        With its templates filled in.
    fresh : bool
        Give up what an earlier run of the job has done.

    Raises
    ------
    InputError, StorageError
        As `inspect_batch`; and while CSV is read.
    """
    report(Progress("plan"))
    inspection = inspect_batch(config)
    root = Path(config.checkpoint.path).absolute()
    parquet = _as_parquet(config, inspection, root)
    _check_values(config, inspection.features, parquet)
    snapshot = _snapshot(inspection, parquet)
    job_id = _job_id(config, inspection.features, snapshot)
    directory = root / "jobs" / job_id
    earlier = None if fresh else _earlier(directory, config, inspection.features, snapshot)
    if earlier is not None:
        return earlier
    shutil.rmtree(directory, ignore_errors=True)
    groups = list(_row_groups(parquet))
    rows = _chunk_rows(config, inspection.features, snapshot.rows)
    plan = BatchPlan(
        job_id=job_id,
        token=secrets.token_hex(4),
        config=config,
        snapshot=snapshot,
        features=inspection.features,
        chunks=cut_chunks(groups, rows),
        commit_every=config.checkpoint.every,
        directory=directory,
    )
    _write(plan)
    return plan


def _features(config: BatchConfig, schema: pa.Schema) -> tuple[Feature, ...]:
    if config.detector.model is not None:
        return _model_features(config.detector.model, schema)
    names = config.source.features
    if names is None:
        others = {*config.source.key, config.source.label, config.source.timestamp}
        names = tuple(field.name for field in schema if field.name not in others and is_numeric(field.type))
    features = [_feature(config, schema, name) for name in names]
    timestamp = config.source.timestamp
    for part in config.preprocess.time_parts:
        if not pa.types.is_timestamp(_field(schema, str(timestamp), "source.timestamp").type):
            raise FeatureError(
                f"source.timestamp {timestamp}: a {schema.field(timestamp).type}, not a timestamp",
                "give a timestamp column, or leave preprocess.time_parts out",
            )
        features.append(
            Feature(
                name=f"{timestamp}.{part}",
                column=str(timestamp),
                kind="time_part",
                time_part=part,
                period=TIME_PERIODS[part],
            )
        )
    if not features:
        raise FeatureError("source.features: the source has no numeric column", "name the features")
    unknown = sorted(set(config.preprocess.cyclic) - {feature.name for feature in features})
    if unknown:
        raise FeatureError(f"preprocess.cyclic.{unknown[0]}: not a feature", "add it to source.features")
    return tuple(features)


def _feature(config: BatchConfig, schema: pa.Schema, name: str) -> Feature:
    kind = _field(schema, name, "source.features").type
    if is_numeric(kind):
        return Feature(name=name, column=name, period=config.preprocess.cyclic.get(name))
    if is_categorical(kind):
        if config.preprocess.categorical != "refuse":
            return Feature(name=name, column=name, kind="categorical")
        raise FeatureError(
            f"source.features: column {name} is text, not a number",
            "set preprocess.categorical to onehot or ordinal, or leave it out",
        )
    raise FeatureError(
        f"source.features: column {name} is a {kind}, not a number",
        "leave it out, or make a number of it in the source",
    )


def _model_features(path: str, schema: pa.Schema) -> tuple[Feature, ...]:
    features = load_model(Path(path)).features
    for feature in features:
        kind = _field(schema, feature.column, "detector.model").type
        fits = {"numeric": is_numeric, "categorical": is_categorical, "time_part": pa.types.is_timestamp}
        if not fits[feature.kind](kind):
            raise FeatureError(
                f"detector.model {path}: its feature {feature.name} is {feature.kind}, the source's a {kind}",
                "give a model that was fitted on such data",
            )
    return features


def _field(schema: pa.Schema, name: str, role: str) -> pa.Field:
    if schema.get_all_field_indices(name)[1:]:
        raise FeatureError(f"{role}: the source has several columns {name}", "rename all but one")
    index = schema.get_field_index(name)
    if index < 0:
        raise FeatureError(f"{role}: the source has no column {name}", f"it has: {', '.join(schema.names)}")
    return schema.field(index)


def _columns(config: BatchConfig, features: Iterable[Feature], schema: pa.Schema) -> tuple[str, ...]:
    """Every column that the job reads, checked."""
    kept = {"source.key": config.source.key, "output.columns": config.output.columns}
    for role, names in kept.items():
        for name in names:
            _field(schema, name, role)
            if name in _RESERVED_NAMES:
                raise ConfigError(
                    f"{role}: {name} is a column that the results add", "rename it in the source"
                )
    if not config.source.key and "row" in {*config.output.columns, *(feature.column for feature in features)}:
        raise ConfigError("source: a column named row, which the results add", "name source.key")
    clash = [feature.column for feature in features if feature.column in _RESERVED_NAMES]
    if clash:
        raise ConfigError(
            f"source.features: {clash[0]} is a column that the results add", "rename it in the source"
        )
    wanted = [*config.source.key, *(feature.column for feature in features), *config.output.columns]
    return tuple(dict.fromkeys(wanted))


def _check_same(file: Path, first: Path, found: pa.Schema, schema: pa.Schema, columns: Sequence[str]) -> None:
    for name in columns:
        index = found.get_field_index(name)
        if index < 0 or found.field(index).type != schema.field(name).type:
            has = "none" if index < 0 else str(found.field(index).type)
            raise SourceError(
                f"{file}: column {name} is {has}, in {first} it is {schema.field(name).type}",
                "give files of one schema",
            )


def _check_detector(config: BatchConfig) -> None:
    if config.detector.model is None:
        make_estimator(config.detector.kind, config.detector.params, config.detector.seed)
    elif config.threshold.quantile is not None:
        raise ModelError(
            "threshold.quantile: the training sample of detector.model is not at hand",
            "set threshold.contamination or threshold.score",
        )


def _check_output(config: BatchConfig) -> None:
    output = Path(config.output.path)
    for path in (output, Path(config.checkpoint.path)):
        _check_writable(path)
    if not output.exists():
        return
    if (output / MANIFEST).exists():
        owner = read_manifest(output).name
        if owner != config.name:
            raise OutputConflict(
                f"output.path {output}: holds the results of {owner!r}, this is {config.name!r}",
                "give another directory, or the same name",
            )
    elif any(not entry.name.startswith(".") for entry in output.iterdir()):
        raise OutputConflict(
            f"output.path {output}: holds files that are no results", "give an empty directory"
        )


def _check_writable(path: Path) -> None:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputConflict(f"{path}: {existing} is a file", "give a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise storage_error(PermissionError(13, "permission denied"), path)


def _check_values(config: BatchConfig, features: Sequence[Feature], files: Sequence[ParquetFile]) -> None:
    """Refuse what the Parquet footers already tell: no rows, all-null features, infinite values."""
    if not sum(file.metadata.num_rows for file in files):
        raise SourceError(f"source.path {config.source.path}: no rows", "give an input with rows")
    spare = config.preprocess.missing != "keep" or DETECTORS[config.detector.kind].takes_missing
    nulls = dict.fromkeys((feature.column for feature in features), 0)
    known = set(nulls)
    for file in files:
        for column, statistics in _statistics(file, nulls):
            if statistics is None or not statistics.has_null_count:
                known.discard(column)
                continue
            nulls[column] += statistics.null_count
            if statistics.has_min_max and {statistics.min, statistics.max} & {float("inf"), float("-inf")}:
                raise FeatureError(
                    f"feature {column}: infinite values in {file.path}",
                    "replace them in the source, or leave the feature out of source.features",
                )
    rows = sum(file.metadata.num_rows for file in files)
    for feature in features:
        if feature.column in known and nulls[feature.column] == rows:
            raise FeatureError(
                f"feature {feature.name}: no row has a value", "leave it out of source.features"
            )
        if feature.column in known and nulls[feature.column] and feature.kind != "categorical" and not spare:
            raise FeatureError(
                f"feature {feature.name}: has missing values, and {config.detector.kind} cannot score them",
                "set preprocess.missing, for example to median",
            )


def _statistics(file: ParquetFile, columns: Iterable[str]) -> Iterator[tuple[str, Any]]:
    metadata = file.metadata
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    where = {column: paths.index(column) for column in columns if column in paths}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in columns:
            yield column, row_group.column(where[column]).statistics if column in where else None


def _as_parquet(config: BatchConfig, inspection: Inspection, root: Path) -> list[ParquetFile]:
    if inspection.format == "csv":
        exact = {*config.source.key, *config.output.columns} - {one.column for one in inspection.features}
        staged = [
            stage_csv(file, inspection.columns, tuple(exact), root / "staged") for file in inspection.files
        ]
        return [open_parquet(file) for file in staged]
    return [open_parquet(file) for file in inspection.files]


def _snapshot(inspection: Inspection, parquet: Sequence[ParquetFile]) -> Snapshot:
    files = tuple(
        SourceFile(
            path=str(file.path.absolute()),
            size=file.size,
            mtime_ns=file.mtime_ns,
            rows=file.metadata.num_rows,
            origin=str(origin),
        )
        for origin, file in zip(inspection.files, parquet, strict=True)
    )
    schema = parquet[0].schema
    columns = {name: str(schema.field(name).type) for name in inspection.columns}
    stats = [(str(origin.absolute()), origin.stat()) for origin in inspection.files]
    identity = digest([[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats])
    return Snapshot(files=files, columns=columns, identity=identity)


def _job_id(config: BatchConfig, features: Sequence[Feature], snapshot: Snapshot) -> str:
    detector = config.detector
    fitted = (
        {"model": file_digest(Path(detector.model))} if detector.model else detector.model_dump(mode="json")
    )
    columns = {*config.source.key, *(feature.column for feature in features)}
    identity = {
        "scoring": [_SCORING_VERSION, version("scikit-learn"), version("numpy")],
        "snapshot": snapshot.identity,
        "columns": {name: snapshot.columns[name] for name in sorted(columns)},
        "key": config.source.key,
        "features": [feature.model_dump() for feature in features],
        "preprocess": config.preprocess.model_dump(mode="json"),
        "detector": fitted,
    }
    return digest(identity)[:16]


def _row_groups(files: Iterable[ParquetFile]) -> Iterator[tuple[int, int, int]]:
    for number, file in enumerate(files):
        for group in range(file.metadata.num_row_groups):
            yield number, group, file.metadata.row_group(group).num_rows


def _chunk_rows(config: BatchConfig, features: Sequence[Feature], rows: int) -> int:
    width = sum(2 if feature.period else 1 for feature in features)
    row_bytes = 8 * (width + len(config.source.key) + 2)
    slots, memory = slots_and_memory(config.cluster, os.cpu_count() or 1)
    size = chunk_rows(config.chunking, rows, row_bytes, slots, memory)
    needed = min(size, rows) * row_bytes * _PEAK_COPIES
    if needed > memory and not isinstance(config.cluster, SerialCluster):
        raise ConfigError(
            f"chunking: a chunk of {min(size, rows):,} rows needs about {needed >> 20:,} MiB, "
            f"a worker's slot has {memory >> 20:,} MiB",
            "lower chunking.rows, or raise cluster.memory_limit",
        )
    return size


def _earlier(
    directory: Path, config: BatchConfig, features: tuple[Feature, ...], snapshot: Snapshot
) -> BatchPlan | None:
    """Return the plan that an earlier run of the job wrote, with this run's configuration."""
    try:
        record = read_record(directory / "plan.json", FORMAT_VERSION)
        if Snapshot.model_validate(record["snapshot"]).files != snapshot.files:
            return None
        chunks = ChunkTable.from_lists(record["chunks"])
    except (FileNotFoundError, IntegrityError, ValidationError):
        return None
    return BatchPlan(
        job_id=directory.name,
        token=record["token"],
        config=config,
        snapshot=snapshot,
        features=features,
        chunks=chunks,
        commit_every=record["commit_every"],
        directory=directory,
    )


def _write(plan: BatchPlan) -> None:
    record: Mapping[str, Any] = {
        "job_id": plan.job_id,
        "token": plan.token,
        "config": plan.config.stated(),
        "snapshot": plan.snapshot.model_dump(mode="json"),
        "features": [feature.model_dump() for feature in plan.features],
        "chunks": plan.chunks.to_lists(),
        "commit_every": plan.commit_every,
    }
    write_record(plan.directory / "plan.json", record, FORMAT_VERSION)
