"""Types of columns: one form for those that Arrow cannot select rows of, and a type for both of two."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pyarrow as pa

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Each type has all values of those before it.
_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATING = (pa.float16(), pa.float32(), pa.float64())
_CHAINS = (
    _SIGNED,
    _UNSIGNED,
    _FLOATING,
    (pa.string(), pa.large_string()),
    (pa.binary(), pa.large_binary()),
    (pa.date32(), pa.date64()),
    (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
)
_UTC = ("UTC", "Etc/UTC", "+00:00", "Z", "GMT")
_LARGEST_WHOLE = 1 << 53  # of a double without gaps
_LARGEST = (1 << 63) - 1


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which columns of a type are held: views, at any depth, become large and plain."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, stored_type(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([_stored_field(field) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_stored_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_stored_field(kind.value_field))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_stored_field(kind.value_field))
    if pa.types.is_map(kind):
        stored = pa.map_(_stored_field(kind.key_field), _stored_field(kind.item_field), kind.keys_sorted)
        return kind if stored == kind else stored  # which names the entries
    return kind


def _stored_field(field: pa.Field) -> pa.Field:
    return field.with_type(stored_type(field.type))


def _stored(array: pa.Array) -> pa.Array:
    """Return an array in its stored type. Arrow's own cast of a list of views leaves offsets out."""
    kind, stored = array.type, stored_type(array.type)
    if kind == stored:
        return array
    if pa.types.is_struct(kind):
        children = [_stored(child) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, fields=list(stored), mask=array.is_null())
    if pa.types.is_list(stored) or pa.types.is_large_list(stored):
        large = pa.types.is_large_list(stored)
        lengths = np.asarray(array.value_lengths().fill_null(0), dtype=np.int64)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int64() if large else pa.int32())
        lists = pa.LargeListArray if large else pa.ListArray
        return lists.from_arrays(offsets, _stored(array.flatten()), type=stored, mask=array.is_null())
    return array.cast(stored)


def select(
    batch: pa.RecordBatch, columns: Sequence[str], casts: Mapping[str, pa.DataType] = MappingProxyType({})
) -> pa.RecordBatch:
    """Return columns of a batch, in the types of `casts` or in stored ones; raise if a value does not fit."""
    arrays = []
    for name in columns:
        array = _stored(batch.column(name))
        arrays.append(array.cast(casts[name]) if name in casts else array)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that has the values of both, within `value_limits`; None if there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    one, other = _undictionary(one), _undictionary(other)
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        one, other = _signed(one, other)
    for chain in _CHAINS:
        if one in chain and other in chain:
            return max(one, other, key=chain.index)
    if (one in _FLOATING or other in _FLOATING) and _is_number(one) and _is_number(other):
        return pa.float64()
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other):
        return _common_timestamp(one, other)
    if pa.types.is_decimal(one) and pa.types.is_decimal(other):
        return _common_decimal(one, other)
    return None


def _undictionary(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _signed(*kinds: pa.DataType) -> tuple[pa.DataType, ...]:
    """Return integer types as signed ones, if not all are unsigned."""
    if all(kind in _UNSIGNED for kind in kinds):
        return kinds
    wider = dict(zip(_UNSIGNED, (*_SIGNED[1:], pa.int64()), strict=True))
    return tuple(wider.get(kind, kind) for kind in kinds)


def _common_timestamp(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    zones = {"UTC" if kind.tz in _UTC else kind.tz for kind in (one, other)}
    if len(zones) > 1:
        return None
    return pa.timestamp(max(one.unit, other.unit, key=_UNITS.__getitem__), zones.pop())


def _common_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    precision = max(kind.precision - kind.scale for kind in (one, other)) + scale
    if precision > 76:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def value_limits(kind: pa.DataType, common: pa.DataType) -> tuple[int, int] | None:
    """Return the stored values of a type that a common type can have; None if it can have all."""
    if pa.types.is_integer(kind) and kind.bit_width == 64 and pa.types.is_floating(common):
        return -_LARGEST_WHOLE, _LARGEST_WHOLE
    if kind == pa.uint64() and common == pa.int64():
        return 0, _LARGEST
    if pa.types.is_timestamp(kind) and kind.unit != common.unit:
        most = _LARGEST * _UNITS[kind.unit] // _UNITS[common.unit]
        return -most, most
    return None


def type_text(kind: pa.DataType) -> str:
    """Return a type as text for a record."""
    return base64.b64encode(pa.schema([pa.field("", kind)]).serialize()).decode()


@lru_cache(maxsize=256)
def parse_type(text: str) -> pa.DataType:
    """Return the type of a `type_text`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type
