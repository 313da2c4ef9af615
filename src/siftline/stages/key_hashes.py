"""Hashes of keys: 64 bits for every row, so that equal keys have equal hashes, without an object per row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_MISSING = np.uint64(0x6D697373696E6721)
# Bits of the first so many bytes of a word.
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
# Rows at once: what is computed stays in the processor's cache.
_ROWS = 4_096
_LONGEST = 1_024


def hash_keys(table: pa.Table, key: Sequence[str]) -> tuple[Hashes, int] | None:
    """Return the hash of every row's key, and the rows that lack a part of it; None if a type has no hash."""
    columns = [flat for name in key if (flat := _flat(table[name])) is not None]
    if len(columns) < len(key):
        return None
    if len(columns) == 1 and pa.types.is_integer(columns[0].type):
        return _integers(columns[0])
    hashes = np.empty(table.num_rows, dtype=np.uint64)
    lacking = 0
    for first in range(0, table.num_rows, _ROWS):
        found = _hash_rows([column.slice(first, _ROWS) for column in columns])
        if found is None:
            return None
        hashes[first : first + _ROWS] = found[0]
        lacking += found[1]
    return hashes, lacking


def _integers(column: pa.Array) -> tuple[Hashes, int]:
    """Return integers as their own hashes, and how many are missing."""
    words = column if column.type == pa.uint64() else column.cast(pa.int64())
    hashes = words.fill_null(0).to_numpy().view(np.uint64)
    missing = _missing(column)
    return (hashes, 0) if missing is None else (np.where(missing, _MISSING, hashes), int(missing.sum()))


def _hash_rows(columns: Sequence[pa.Array]) -> tuple[Hashes, int] | None:
    hashes: Hashes = np.zeros(1, np.uint64)
    lacking = np.zeros(1, bool)
    for column in columns:
        found = _hash(column)
        if found is None:
            return None
        missing = _missing(column)
        if missing is not None:
            found[missing] = _MISSING
            lacking = lacking | missing
        hashes = _mixed(hashes ^ found)
    return hashes, int(lacking.sum())


def _flat(column: pa.ChunkedArray) -> pa.Array | None:
    """Return a column as one array of numbers or texts; None for any other type."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more texts than one array holds
        array = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in array.chunks])
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.int8())
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.large_binary())
    if pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.binary())
    return array if pa.types.is_primitive(kind) or _is_decimal(kind) or _is_text(kind) else None


def _is_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind)) and kind.bit_width % 8 == 0


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _missing(array: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Return which rows lack a value, NaN included; None if none does."""
    floating = pa.types.is_floating(array.type)
    if not array.null_count and not floating:
        return None
    return np.asarray(array.is_null(nan_is_null=floating).to_numpy(zero_copy_only=False))


def _hash(array: pa.Array) -> Hashes | None:
    if _is_text(array.type):
        return _hash_texts(array)
    if pa.types.is_floating(array.type):  # -0.0 and 0.0 are equal
        array = pc.add(array.cast(pa.float64()), 0.0)
    size = array.type.bit_width // 8
    start, stop = array.offset * size, (array.offset + len(array)) * size
    values = np.frombuffer(array.buffers()[1], np.uint8)[start:stop] if len(array) else np.empty(0, np.uint8)
    if size < 8:
        return _mixed(values.view(f"u{size}").astype(np.uint64))
    words = values.view(np.uint64).reshape(len(array), -1)
    return reduce(lambda hashes, word: _mixed(hashes ^ word), words.T, np.zeros(len(array), np.uint64))


def _hash_texts(array: pa.Array) -> Hashes | None:
    """Hash texts by words of eight bytes, of which the last may have fewer."""
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int64 if large else np.int32)[array.offset :][: len(array) + 1]
    begin, end = int(edges[0]), int(edges[-1])
    sizes = np.diff(edges).astype(np.int64)
    shortest, longest = int(sizes.min()), int(sizes.max())
    if longest > _LONGEST:
        return None
    content = np.frombuffer(data, np.uint8)[begin:end] if end > begin else np.empty(0, np.uint8)
    hashes = _mixed(sizes.astype(np.uint64))
    if shortest == longest:
        words = np.zeros((len(array), -(-longest // 8) * 8), np.uint8)
        words[:, :longest] = content.reshape(len(array), longest)
        return reduce(lambda done, word: _mixed(done ^ word), words.view("<u8").T, hashes)
    return _hash_words(
        np.append(content, np.zeros(8, np.uint8)), (edges[:-1] - begin).astype(np.int64), sizes, hashes
    )


def _hash_words(content: npt.NDArray[np.uint8], starts: Places, sizes: Places, hashes: Hashes) -> Hashes:
    # The word that starts at any byte.
    words = np.ndarray((len(content) - 7,), np.dtype("<u8"), content, strides=(1,))
    shortest, longest = int(sizes.min()), int(sizes.max())
    for done in range(0, longest, 8):
        if done + 8 <= shortest:
            hashes = _mixed(hashes ^ words[starts + done])
            continue
        rows = np.flatnonzero(sizes > done)
        last = words[starts[rows] + done] & _MASKS[np.minimum(sizes[rows] - done, 8)]
        hashes[rows] = _mixed(hashes[rows] ^ last)
    return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all bits; a permutation, so that different words of a row stay different."""
    hashes = hashes * _FACTOR
    hashes ^= hashes >> _SHIFT
    hashes *= _FACTOR
    hashes ^= hashes >> _SHIFT
    return hashes
