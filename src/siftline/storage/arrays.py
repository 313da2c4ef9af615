"""Numbers between Arrow and NumPy: pyarrow's own conversions import pandas, which takes time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers of which none is missing, of shape (n,); those of one chunk share its memory."""
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    none = np.empty(0, column.type.to_pandas_dtype())
    return chunks[0] if len(chunks) == 1 else np.concatenate([none, *chunks])


def to_arrow(values: np.ndarray) -> pa.Array:
    """Return the array of numbers of shape (n,), in their memory if they are contiguous."""
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])
