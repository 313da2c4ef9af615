"""Numbers go from Arrow to NumPy and back as they are, and nobody imports pandas for it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.storage.arrays import to_arrow, to_numpy

TYPES = ["int8", "int64", "uint32", "float32", "float64"]


@given(kind=st.sampled_from(TYPES), cuts=st.lists(st.integers(0, 20), max_size=4), step=st.integers(1, 3))
def test_numbers_come_back(kind: str, cuts: list[int], step: int) -> None:
    values = np.arange(20).astype(kind)[::step]
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    whole = to_arrow(values)
    chunks = [whole.slice(low, high - low) for low, high in itertools.pairwise(edges)]
    found = to_numpy(pa.chunked_array(chunks))
    assert whole.equals(pa.array(values))
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_no_chunks_are_no_numbers_of_the_type(kind: str) -> None:
    found = to_numpy(pa.chunked_array([], pa.from_numpy_dtype(np.dtype(kind))))
    assert (found.dtype, len(found)) == (np.dtype(kind), 0)


def test_numbers_of_one_chunk_are_not_copied() -> None:
    values = np.arange(10)
    assert np.shares_memory(values, to_numpy(pa.chunked_array([to_arrow(values)])))


@pytest.mark.filterwarnings("ignore:Exporting an unversioned DLPack")
def test_missing_numbers_are_refused() -> None:
    with pytest.raises((TypeError, ValueError, pa.ArrowException)):
        to_numpy(pa.chunked_array([[1, None]]))


def test_pandas_is_not_imported() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from siftline.storage.arrays import to_arrow, to_numpy\n"
        "to_numpy(pa.chunked_array([to_arrow(np.arange(3.0))]))\n"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
