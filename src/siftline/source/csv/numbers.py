"""Numbers as text: decimal marks and separated thousands."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from siftline.config.batch import CsvConfig

FINITE = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
NUMBER = rf"{FINITE}|^\s*[+-]?(?i:inf|infinity)\s*$"
_INTEGER = re.compile(r"[+-]?\d+")
_COMMA_DECIMAL = re.compile(r"[+-]?\d*,\d+")
_COMMA_ONLY_DECIMAL = re.compile(r"[+-]?(?:\d{4,}|0\d*)?,\d+|[+-]?\d*,(?:\d{1,2}|\d{4,})")
_POINT_DECIMAL = re.compile(r"[+-]?\d*\.\d*")


def all_match(values: pa.Array, pattern: str) -> bool:
    """Return True if all texts match a pattern."""
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def decimal_marks(rows: Sequence[Sequence[str]], config: CsvConfig) -> tuple[str, str | None]:
    """Return the decimal mark and the separator of thousands."""
    if config.decimal is not None or config.thousands is not None:
        other = {",": ".", ".": ","}.get(config.thousands or "", ".")
        return config.decimal or other, config.thousands
    columns = [[value.strip() for value in column if value.strip()] for column in zip(*rows, strict=False)]
    points = commas = only_commas = False
    thousands: set[str] = set()
    for column in filter(None, columns):
        points |= all(_INTEGER.fullmatch(one) or _POINT_DECIMAL.fullmatch(one) for one in column) and any(
            "." in one for one in column
        )
        if all(_INTEGER.fullmatch(one) or _COMMA_DECIMAL.fullmatch(one) for one in column):
            commas |= any("," in one for one in column)
            only_commas |= any(_COMMA_ONLY_DECIMAL.fullmatch(one) for one in column)
        for mark, decimal in ((",", "."), (".", ",")):
            if grouped(column, mark, decimal, certain=True):
                thousands.add(mark)
    if thousands == {","} and not only_commas:
        return ".", ","
    if thousands == {"."} and not points:
        return ",", "."
    return (",", None) if only_commas and not points and not thousands else (".", None)


def grouped(column: Sequence[str], mark: str, decimal: str, certain: bool = False) -> bool:
    """Return True if all are numbers, some with separated thousands; `certain` if nothing else fits."""
    group, point = re.escape(mark), re.escape(decimal)
    number = re.compile(
        rf"[+-]?\d{{1,3}}(?:(?:{group}\d{{2,3}})*{group}\d{{3}})?(?:{point}\d*)?|[+-]?\d+(?:{point}\d*)?"
    )
    proof = rf"{group}\d{{2,3}}{group}|{group}\d{{3}}{point}" if certain else group
    return all(number.fullmatch(one) for one in column) and any(re.search(proof, one) for one in column)


def well_separated(values: pa.Array, decimal: str, thousands: str | None) -> pa.Array:
    """Return which numbers have no misplaced separator: ``1,5`` has one, ``1,00,000`` (India) has not."""
    if thousands is None:
        return pc.is_valid(values)
    group, point = re.escape(thousands), re.escape(decimal)
    pattern = rf"^\s*[+-]?\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}(?:{point}\d*)?\s*$"
    return pc.if_else(
        pc.match_substring(values, thousands), pc.match_substring_regex(values, pattern), pc.is_valid(values)
    )


def unmarked_numbers(values: pa.Array, decimal: str, thousands: str | None) -> pa.Array:
    """Return numbers in their plain form: a point, no thousands."""
    if thousands is not None:
        values = pc.replace_substring(values, thousands, "")
    return values if decimal == "." else pc.replace_substring(values, decimal, ".")
