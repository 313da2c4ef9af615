"""Inspection: checks of a job before any of its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from siftline.batch_plan import Feature, Piece
from siftline.config.batch import BatchConfig
from siftline.config.clusters import overruled
from siftline.config.detectors import DETECTORS, surely_right
from siftline.detectors.kinds import make_estimator
from siftline.detectors.preprocess import plain_numbers
from siftline.errors import FeatureError, ModelError, SourceError
from siftline.source.chunks import chunk_rows, row_bytes
from siftline.source.csv.columns import (
    CsvFile,
    csv_feature_schema,
    csv_schema,
    first_with_rows,
    inspect_csv_files,
)
from siftline.source.features import choose_columns, choose_features
from siftline.source.files import ParquetFile, find_files, open_parquet
from siftline.source.left_out import left_out_note, not_features, not_features_of_csv
from siftline.source.schemas import agree, column_statistics, common_schema
from siftline.stages.memory import Widths, check_fit, fit_bytes, measure_widths
from siftline.stages.places import check_places
from siftline.stages.values import as_source, refuse_beyond


@dataclass(frozen=True)
class Inspection:
    """Facts about a job that are known before its work.

    For CSV, `parquet` is empty, `schema` has the types in which columns are read, and the numbers of rows are
    None, because they are unknown before staging. `casts` has columns to be read in another type, by file.
    `notes` are to be said before the work.
    """

    files: tuple[Path, ...]
    format: str
    parquet: tuple[ParquetFile, ...]
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    schema: pa.Schema
    rows: int | None
    chunk_rows: int | None
    casts: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    csv: tuple[CsvFile, ...] = ()
    notes: tuple[str, ...] = ()
    widths: Widths | None = None
    fit_bytes: int = 0


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
    csv = inspect_csv_files(files, config.source) if kind == "csv" else []
    schema = common_schema(parquet) if parquet else csv_feature_schema(config, csv)
    left_out = _left_out(config, schema, parquet, csv)
    features = choose_features(config, schema, left_out)
    columns = choose_columns(config, features, schema)
    notes = overruled(config.cluster, config.resources)
    notes += [note] if (note := left_out_note(left_out, columns)) is not None else []
    if csv:
        schema = csv_schema(csv, config.source, features, columns)
        notes += [note for file in csv for note in file.notes]
    agreement = agree(parquet, schema, columns) if parquet else None
    if agreement is not None:
        notes += agreement.notes
    check_places(config)
    if parquet:
        check_values(config, features, parquet)
    rows = sum(file.rows for file in parquet)
    widths = widths_of(config, features, parquet) if parquet else None
    notes += widths.notes(config) if widths is not None else []
    _check_detector(config)  # last: it may take the second that an import of scikit-learn takes
    return Inspection(
        files=tuple(files),
        format=kind,
        parquet=tuple(parquet),
        features=features,
        columns=columns,
        schema=schema,
        rows=rows if parquet else None,
        chunk_rows=planned_chunk_rows(config, features, parquet, widths) if widths is not None else None,
        casts={} if agreement is None else agreement.casts,
        csv=tuple(csv),
        notes=tuple(notes),
        widths=widths,
        fit_bytes=fit_bytes(config, features, widths.total, rows) if widths is not None else 0,
    )


def _left_out(
    config: BatchConfig, schema: pa.Schema, parquet: Sequence[ParquetFile], csv: Sequence[CsvFile]
) -> dict[str, str]:
    """Return the columns that are no features by default, if features are chosen so."""
    if config.source.features is not None or config.detector.model is not None:
        return {}
    found = not_features(schema, parquet) if parquet else not_features_of_csv(first_with_rows(csv))
    return {name: reason for name, reason in found.items() if name != config.source.timestamp}


def widths_of(config: BatchConfig, features: Sequence[Feature], files: Sequence[ParquetFile]) -> Widths:
    """Return the widths of the features after preprocessing."""
    file = next(file for file in files if file.rows)
    group, rows = next((group, rows) for group, rows in enumerate(file.row_groups) if rows)
    return measure_widths(config, features, [as_source(file)], Piece(0, group, 0, rows))


def planned_chunk_rows(
    config: BatchConfig, features: Sequence[Feature], files: Sequence[ParquetFile], widths: Widths
) -> int:
    """Return the rows of a chunk for these files; see `siftline.source.chunks.chunk_rows`.

    A fit that does not fit into a worker raises `ConfigError`.
    """
    sizes = [size for file in files for size in file.row_groups]
    check_fit(config, features, widths, sum(sizes))
    # Columns of a text feature take time, and no memory: they exist for a batch at a time.
    auto = config.chunking.rows == "auto" and config.chunking.bytes is None
    width = widths.total if auto else sum(2 if feature.period else 1 for feature in features)
    return chunk_rows(
        config.chunking,
        config.cluster,
        sum(sizes),
        row_bytes(width, len(config.source.key)),
        max(sizes, default=0),
        config.resources,
    )


def _check_detector(config: BatchConfig) -> None:
    detector = config.detector
    if detector.model is None and not surely_right(detector.kind, detector.params):
        make_estimator(detector.kind, detector.params, seed=0)
    if detector.model is not None and config.threshold.quantile is not None:
        raise ModelError(
            "threshold.quantile: the training sample of detector.model is not available",
            "set threshold.contamination or threshold.score",
        )


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
    plain = plain_numbers(features, config.preprocess) and config.detector.model is None
    for file in files:
        for column, group, statistics in column_statistics(file, nulls):
            if statistics is None or not statistics.has_null_count:
                known.discard(column)
                continue
            nulls[column] += statistics.null_count
            if config.tolerate.rows or statistics.physical_type not in ("FLOAT", "DOUBLE"):
                continue
            if statistics.has_min_max:
                refuse_beyond(file, column, group, (statistics.min, statistics.max), plain)
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
