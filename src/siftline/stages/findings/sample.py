"""Samples of the source, described on a worker, to compare features and carried columns with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from siftline.batch_plan import Feature, SourceFile
from siftline.errors import JobError, SiftlineError
from siftline.jobs.findings import FeatureFindings, SampleFeatures, sample_record
from siftline.shown import shown
from siftline.source.sample import draw_sample
from siftline.stages.findings.columns import most_frequent, numbers, quantiles, texts

SAMPLE_ROWS = 20_000
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MOST_VALUES = 1_000
_SHOWN_VALUES = 10


@dataclass(frozen=True)
class SampleTask:
    """Task of drawing a seeded sample of the source, and describing features and carried columns."""

    files: tuple[SourceFile, ...]
    row_groups: tuple[tuple[int, int, int], ...]
    features: tuple[Feature, ...]
    carried: tuple[str, ...]
    rows: int
    seed: int

    def __str__(self) -> str:
        return "a sample for comparison"


@dataclass(frozen=True)
class Frequencies:
    """Rows with each of the most frequent values of a column; any other value has at most `rest` rows."""

    counts: Mapping[str, int]
    rest: int

    def at_most(self, value: str) -> int:
        """Return the rows with a value, or the most that it can have."""
        return self.counts.get(value, self.rest)


@dataclass(frozen=True)
class Sampled:
    """Description of the sample; an empty one compares with nothing."""

    rows: int = 0
    features: tuple[FeatureFindings, ...] = ()
    values: Mapping[str, Frequencies] = field(default_factory=dict)


def draw_and_describe(task: SampleTask) -> Sampled:
    """Draw the sample, and describe its features and carried columns."""
    columns = list(dict.fromkeys([*(feature.column for feature in task.features), *task.carried]))
    try:
        sample = draw_sample(task.files, task.row_groups, columns, task.rows, task.seed)
        return Sampled(
            rows=sample.num_rows,
            features=describe_features(sample, task.features),
            values={name: _frequencies(sample[name]) for name in task.carried},
        )
    except SiftlineError:
        raise
    except Exception as error:  # the job goes on without it
        problem = f"the sample cannot be described: {type(error).__name__}: {error}"
        raise JobError(problem, "the result is published without it") from error


def keep_features(sample: pa.Table, features: Sequence[Feature], model: Path) -> None:
    """Describe the features in evenly spread rows of a training sample, and keep this beside the model."""
    step = -(-sample.num_rows // SAMPLE_ROWS)
    rows = pa.array(np.arange(0, sample.num_rows, step))
    # Column by column: all of them would be a second copy of the sample.
    found = tuple(_feature(sample.select([feature.column]).take(rows), feature) for feature in features)
    sample_record(model).write(SampleFeatures(rows=len(rows), features=found))


def describe_features(sample: pa.Table, features: Sequence[Feature]) -> tuple[FeatureFindings, ...]:
    """Describe features in a sample of at least one row."""
    return tuple(_feature(sample, feature) for feature in features)


def _feature(sample: pa.Table, feature: Feature) -> FeatureFindings:
    if feature.kind == "categorical":
        column = texts(sample[feature.column])
        values = most_frequent(column, _SHOWN_VALUES)
        return FeatureFindings(
            name=feature.name,
            kind=feature.kind,
            values=tuple((shown(value), count / len(column)) for value, count in values),
            missing=column.null_count / len(column),
        )
    found = numbers(sample, feature)
    return FeatureFindings(
        name=feature.name,
        kind=feature.kind,
        quantiles=quantiles(found, _QUANTILES),
        missing=float(np.isnan(found).mean()),
    )


def _frequencies(column: pa.ChunkedArray) -> Frequencies:
    top = most_frequent(texts(column), _MOST_VALUES)
    rest = top[-1][1] if len(top) == _MOST_VALUES else 1
    return Frequencies(dict(top), rest)
