"""Values of tables for people, in Python or as text; nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from siftline.shown import shown


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a small table."""
    columns = [[value_of(value) for value in column] for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def value_of(value: pa.Scalar) -> Any:
    """Return a value; as text if beyond Python's times, of an unknown zone, or malformed."""
    if pa.types.is_time(value.type) and value.is_valid:
        return _arrow_text(value)  # Python has no nanoseconds, and wraps around what is beyond a day
    try:
        return value.as_py()
    except Exception:  # noqa: BLE001  depends on the type, the zone, and the libraries that are there
        if isinstance(value, pa.StructScalar):
            names = [field.name for field in value.type]
            return {name: value_of(value[place]) for place, name in enumerate(names)}
        if isinstance(value, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):
            return [value_of(one) for one in value.values]
        return _arrow_text(value)


def reason_text(reason: Mapping[str, Any]) -> str:
    """Return a reason of the anomalies table in words."""
    how = f"typical {shown(reason['typical'])}"
    if reason["distance"] is not None:
        how += f", {reason['distance']:.1f} σ {'above' if reason['direction'] == 'high' else 'below'}"
    return f"{shown(reason['feature'])} {shown(reason['value'])} ({how})"


def cell(value: object) -> object:
    """Return a value of a carried column: numbers and times as they are, anything else as a safe text."""
    plain = (int, float, Decimal, date, time, timedelta)
    return value if value is None or isinstance(value, plain) else shown(value)


def _arrow_text(value: pa.Scalar) -> str:
    """Return a value as Arrow writes it, which it can for all values."""
    with suppress(pa.ArrowException, UnicodeDecodeError):
        text: str = value.cast(pa.string()).as_py()
        return text
    written: str = pa.repeat(value, 1).to_string(skip_new_lines=True)
    return written.removeprefix("[").removesuffix("]").strip('"')
