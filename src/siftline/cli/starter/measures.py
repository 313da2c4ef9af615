"""Columns that are no measurements, and why."""

from __future__ import annotations

from siftline.cli.starter.names import is_code, is_cyclic_hour, is_identifier, is_label, is_time
from siftline.cli.starter.profile import Column
from siftline.progress import counted

# Fewer integers may rise by chance.
_RISING_ROWS = 100
_MOST_CLASSES = 20
_ROWS_OF_A_CLASS = 5


def no_measure(column: Column) -> str | None:
    """Return the reason against a column as a feature; None for possible measurements."""
    if not column.known:
        return "no value"
    if column.kind == "text":
        return _of_text(column)
    if column.kind not in ("number", "boolean"):
        return column.kind
    if not column.finite:
        return "infinite values, or too large for 32-bit floating point"
    if column.constant:
        return "constant"
    if column.indistinct:
        return "too large: its values are one number in 64-bit floating point"
    if column.kind == "boolean" or is_cyclic_hour(column):
        return "a label by its name" if is_label(column.words) else None
    return _of_number(column)


def _of_text(column: Column) -> str:
    values = f"{counted(column.distinct, 'value')} in {column.known:,} rows"
    if is_identifier(column):
        return f"an identifier, {values}"
    if column.code:
        return f"codes such as {column.values[0].as_py()}"
    if column.numbers_as_text:
        return "numbers as text"
    return "constant" if column.constant else f"text, {values}"


def _of_number(column: Column) -> str | None:
    classes = column.distinct <= min(_MOST_CLASSES, column.known / _ROWS_OF_A_CLASS)
    if is_label(column.words) and column.integral and classes:
        return f"a label by its name, {column.distinct} values"
    if is_identifier(column):
        return f"an identifier, {column.distinct:,} values in {column.known:,} rows"
    if is_code(column):
        return "codes by its name"
    if column.counter:
        return "counts the rows"
    if is_time(column):
        return "a time by its name"
    if column.rows >= _RISING_ROWS and column.unique and column.rising and column.integral:
        return "rises with every row"
    return None
