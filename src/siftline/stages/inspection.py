"""Inspection: checks of a job before any of its work."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from siftline.batch_plan import Feature
from siftline.config.batch import BatchConfig
from siftline.config.detectors import DETECTORS
from siftline.detectors.kinds import make_estimator
from siftline.errors import FeatureError, ModelError, OutputConflict, SourceError, storage_error
from siftline.jobs.results import read_manifest
from siftline.source.chunks import chunk_rows, row_bytes
from siftline.source.csv import csv_schema
from siftline.source.features import choose_columns, choose_features
from siftline.source.files import ParquetFile, find_files, open_parquet
from siftline.storage.layout import OutputFiles


@dataclass(frozen=True)
class Inspection:
    """Facts about a job that are known before its work.

    For CSV, `parquet` is empty, integers of the columns `exact` stay integers, and the numbers of rows are
    None, because they are unknown before staging.
    """

    files: tuple[Path, ...]
    format: str
    parquet: tuple[ParquetFile, ...]
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    exact: frozenset[str]
    rows: int | None
    chunk_rows: int | None


def inspect_batch(config: BatchConfig) -> Inspection:
    """Check a configuration, templates rendered, as far as possible without writing.

    Raises
    ------
    InputError
        On the first problem that makes the job impossible.
    StorageError
        When the output or the checkpoint cannot be written.
    """
    files, kind = find_files(config.source)
    parquet = [open_parquet(file) for file in files] if kind == "parquet" else []
    schema = parquet[0].schema if parquet else csv_schema(files[0])
    features = choose_features(config, schema)
    columns = choose_columns(config, features, schema)
    exact = {*config.source.key, *config.output.columns} - {feature.column for feature in features}
    schemas = [file.schema for file in parquet] or [csv_schema(file, exact) for file in files]
    for file, found in zip(files[1:], schemas[1:], strict=True):
        _check_same(file, files[0], found, schemas[0], columns)
    _check_detector(config)
    _check_output(config)
    if parquet:
        check_values(config, features, parquet)
    return Inspection(
        files=tuple(files),
        format=kind,
        parquet=tuple(parquet),
        features=features,
        columns=columns,
        exact=frozenset(exact),
        rows=sum(file.rows for file in parquet) if parquet else None,
        chunk_rows=planned_chunk_rows(config, features, parquet) if parquet else None,
    )


def planned_chunk_rows(config: BatchConfig, features: Sequence[Feature], files: Sequence[ParquetFile]) -> int:
    """Return the rows of a chunk for these files; see `siftline.source.chunks.chunk_rows`."""
    width = sum(2 if feature.period else 1 for feature in features)
    sizes = [size for file in files for size in file.row_groups]
    return chunk_rows(
        config.chunking,
        config.cluster,
        sum(sizes),
        row_bytes(width, len(config.source.key)),
        max(sizes, default=0),
        config.resources,
    )


def _check_same(file: Path, first: Path, found: pa.Schema, schema: pa.Schema, columns: Sequence[str]) -> None:
    for name in columns:
        index = found.get_field_index(name)
        if index < 0 or found.field(index).type != schema.field(name).type:
            has = "none" if index < 0 else str(found.field(index).type)
            raise SourceError(
                f"{file}: column {name} is {has}, in {first} it is {schema.field(name).type}",
                "use files of one schema",
            )


def _check_detector(config: BatchConfig) -> None:
    detector = config.detector
    if detector.model is None and detector.params:  # without any, scikit-learn need not be imported
        make_estimator(detector.kind, detector.params, seed=0)
    if detector.model is not None and config.threshold.quantile is not None:
        raise ModelError(
            "threshold.quantile: the training sample of detector.model is not available",
            "set threshold.contamination or threshold.score",
        )


def _check_output(config: BatchConfig) -> None:
    output = Path(config.output.path)
    for path in (output, Path(config.checkpoint.path)):
        _check_writable(path)
    if not output.exists():
        return
    files = OutputFiles(output)
    if files.manifest.exists():
        owner = read_manifest(output).name
        if owner != config.name:
            raise OutputConflict(
                f"output.path {output}: contains the results of {owner!r}, this is {config.name!r}",
                "use another directory, or the same name",
            )
        return
    # A run killed during its first publication leaves these, and no manifest.
    ours = {*files.SHOWN, *files.FORMER} if files.publishing.exists() else set()
    if any(not entry.name.startswith(".") and entry.name not in ours for entry in output.iterdir()):
        raise OutputConflict(
            f"output.path {output}: contains files that are not Siftline results", "use an empty directory"
        )


def _check_writable(path: Path) -> None:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputConflict(f"{path}: {existing} is a file", "use a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise storage_error(PermissionError(errno.EACCES, "permission denied"), path)


def check_values(config: BatchConfig, features: Sequence[Feature], files: Sequence[ParquetFile]) -> None:
    """Check the statistics in Parquet footers: no rows, all-null features, infinite values."""
    rows = sum(file.rows for file in files)
    if not rows:
        raise SourceError(f"source.path {config.source.path}: no rows", "use an input with rows")
    # A given model may impute missing values; that shows only when it scores.
    spare = (
        config.detector.model is not None
        or config.tolerate.rows != 0
        or config.preprocess.missing != "keep"
        or DETECTORS[config.detector.kind].takes_missing
    )
    nulls = dict.fromkeys((feature.column for feature in features), 0)
    known = set(nulls)
    for file in files:
        for column, statistics in _statistics(file, nulls):
            if statistics is None or not statistics.has_null_count:
                known.discard(column)
                continue
            nulls[column] += statistics.null_count
            if config.tolerate.rows or statistics.physical_type not in ("FLOAT", "DOUBLE"):
                continue
            if statistics.has_min_max and (math.isinf(statistics.min) or math.isinf(statistics.max)):
                raise FeatureError(
                    f"feature {column}: infinite values in {file.path}",
                    "replace them in the source, or leave the feature out of source.features",
                )
    for feature in features:
        if feature.column in known and nulls[feature.column] == rows:
            raise FeatureError(
                f"feature {feature.name}: no row has a value", "leave it out of source.features"
            )
        if feature.column in known and nulls[feature.column] and feature.kind != "categorical" and not spare:
            raise FeatureError(
                f"feature {feature.name}: has missing values, which {config.detector.kind} cannot score",
                "set preprocess.missing, for example to median",
            )


def _statistics(file: ParquetFile, columns: Iterable[str]) -> Iterator[tuple[str, Any]]:
    metadata = file.read_metadata()
    if not metadata.num_row_groups:
        return
    # Not from metadata.schema: the two refer to each other, and footers would pile up as garbage.
    first = metadata.row_group(0)
    paths = [first.column(index).path_in_schema for index in range(metadata.num_columns)]
    where = {column: paths.index(column) for column in columns if column in paths}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in columns:
            yield column, row_group.column(where[column]).statistics if column in where else None
