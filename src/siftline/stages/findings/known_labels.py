"""Known labels of rows, read on a worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.batch_plan import Piece, SourceFile
from siftline.detectors.preprocess import is_categorical, is_numeric
from siftline.errors import SourceError
from siftline.jobs.texts import value_of
from siftline.shown import shown
from siftline.source.reading import read_pieces
from siftline.stages.findings.tally import Labels

_NORMAL = ("0", "0.0", "false", "no", "normal", "inlier")
_ANOMALOUS = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "abnormal", "outlier")


def read_labels(files: Sequence[SourceFile], pieces: Sequence[Piece], column: str) -> Labels:
    """Read the known labels of a chunk: 1 for an anomaly, 0 for a normal row, -1 for an unknown one."""
    batches = read_pieces(files, pieces, [column])
    return np.concatenate([as_labels(batch[column], column) for batch in batches])


def as_labels(values: pa.Array, column: str) -> Labels:
    """Turn a column into labels; raise `SourceError` at a value that is neither of the two."""
    normal, anomalous = pa.array(_NORMAL), pa.array(_ANOMALOUS)
    if is_categorical(values.type):
        text = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string())))
        found = pc.if_else(pc.equal(text, ""), None, text)
    elif is_numeric(values.type):
        numbers = values.cast(pa.float64())
        found = pc.if_else(pc.is_nan(numbers), None, numbers)
        normal, anomalous = pa.array([0.0]), pa.array([1.0])
    else:
        raise _unusable(column, f"it is a {values.type}")
    codes = pc.index_in(found, value_set=pa.concat_arrays([normal, anomalous]))
    strange = found.filter(pc.and_(pc.is_valid(found), pc.is_null(codes)))
    if len(strange):
        raise _unusable(column, f"it has the value {shown(value_of(strange[0]))!r}")
    places = np.asarray(pc.fill_null(codes, -1))
    return np.where(places < 0, -1, places >= len(normal)).astype(np.int8)


def _unusable(column: str, problem: str) -> SourceError:
    remedy = "use 0 and 1, true and false, or normal and anomaly"
    return SourceError(f"source.label {column}: {problem}", remedy)
