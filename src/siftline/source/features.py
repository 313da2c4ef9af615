"""Features of a job, and the other columns that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from siftline.batch_plan import Feature
from siftline.config.batch import BatchConfig
from siftline.detectors.fitted import load_model
from siftline.detectors.preprocess import DATE_PARTS, TIME_PERIODS, is_categorical, is_numeric
from siftline.errors import ConfigError, FeatureError
from siftline.shown import listed
from siftline.source.left_out import left_out_note

RESERVED_NAMES = ("row", "score", "label", "rank", "reasons")


def choose_features(
    config: BatchConfig, schema: pa.Schema, left_out: Mapping[str, str] | None = None
) -> tuple[Feature, ...]:
    """Return the configured features, or all numeric columns not `left_out`, checked against the schema.

    A missing or unsuitable column raises `FeatureError`, an unusable ``detector.model`` `ModelError`.
    """
    if config.detector.model is not None:
        return _model_features(config.detector.model, schema)
    names = config.source.features
    if names is None:
        others = {*config.source.key, config.source.label, config.source.timestamp}
        others |= (left_out or {}).keys()
        names = tuple(field.name for field in schema if field.name not in others and is_numeric(field.type))
    features = [_feature(config, schema, name) for name in names]
    timestamp = config.source.timestamp
    for part in config.preprocess.time_parts:
        kind = _field(schema, str(timestamp), "source.timestamp").type
        if not pa.types.is_timestamp(kind) and not (pa.types.is_date(kind) and part in DATE_PARTS):
            what = f"which has no {part}" if pa.types.is_date(kind) else "not a timestamp"
            raise FeatureError(
                f"source.timestamp {timestamp}: a {kind}, {what}",
                "give a timestamp column, or leave preprocess.time_parts out",
            )
        name, period = f"{timestamp}.{part}", TIME_PERIODS[part]
        features.append(
            Feature(name=name, column=str(timestamp), kind="time_part", time_part=part, period=period)
        )
    if not features:
        found = left_out_note(left_out or {}, [])
        what = f"no column to score by default ({found})" if found else "the source has no numeric column"
        raise FeatureError(f"source.features: {what}", "name the features")
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
        "leave it out, or convert it to a number in the source",
    )


def _model_features(path: str, schema: pa.Schema) -> tuple[Feature, ...]:
    features = load_model(Path(path)).features
    for feature in features:
        kind = _field(schema, feature.column, "detector.model").type
        fits = {"numeric": is_numeric, "categorical": is_categorical, "time_part": _has_time}
        if not fits[feature.kind](kind):
            raise FeatureError(
                f"detector.model {path}: its feature {feature.name} is {feature.kind}, the source's a {kind}",
                "use a model fitted on data of this schema",
            )
    return features


def _has_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _field(schema: pa.Schema, name: str, role: str) -> pa.Field:
    if schema.get_all_field_indices(name)[1:]:
        raise FeatureError(f"{role}: the source has several columns {name}", "rename all but one")
    index = schema.get_field_index(name)
    if index < 0:
        raise FeatureError(f"{role}: the source has no column {name}", f"it has: {listed(schema.names)}")
    return schema.field(index)


def choose_columns(config: BatchConfig, features: Iterable[Feature], schema: pa.Schema) -> tuple[str, ...]:
    """Return all columns that the job reads: keys, features, carried columns, the label.

    A missing column raises `FeatureError`, one with the name of a result column `ConfigError`.
    """
    used = tuple(feature.column for feature in features)
    key, carried = config.source.key, config.output.columns
    for role, names in {"source.key": key, "output.columns": carried, "source.features": used}.items():
        for name in names:
            _field(schema, name, role)
            if name in RESERVED_NAMES and not (name == "row" and name in key):  # then it is the user's
                raise ConfigError(f"{role}: {name} is the name of a result column", "rename it in the source")
    label = config.source.label
    if label is not None:
        _field(schema, label, "source.label")
    return tuple(dict.fromkeys([*key, *used, *carried, *filter(None, [label])]))
