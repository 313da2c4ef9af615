"""Profiles of columns: what their first values are like."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.cli.starter.rows import FirstRows
from siftline.detectors.preprocess import is_categorical, is_numeric
from siftline.source.csv.columns import CODE, COUNTER_ROWS
from siftline.source.csv.numbers import FINITE, all_match

Kind = Literal["number", "boolean", "text", "timestamp", "date", "other"]
_WORDS = re.compile(r"[\W_]+")
# A smaller range, as a share of the largest value, may have more values than 32 bits tell apart.
_NARROW = 2.0**-8


@dataclass(frozen=True)
class Column:
    """Facts about a column in the rows that were read.

    `most` is the number of rows with the most frequent value; `values` has the known ones. `words` are those
    of the name, in lower case.
    """

    name: str
    kind: Kind
    type: pa.DataType
    rows: int
    known: int
    distinct: int
    most: int
    values: pa.Array
    words: tuple[str, ...]

    @property
    def unique(self) -> bool:
        """Return True if no value is missing or repeated."""
        return self.distinct == self.rows == self.known

    @property
    def constant(self) -> bool:
        """Return True if two rows or more have one value."""
        return self.distinct == 1 and self.known > 1

    @cached_property
    def numbers(self) -> np.ndarray:
        """The known values as float64."""
        return np.asarray(self.values.cast(pa.float64(), safe=False))

    @property
    def finite(self) -> bool:
        """Return True if 32-bit floating point has the values, more or less."""
        return self.kind != "number" or bool((np.abs(self.numbers) <= np.finfo(np.float32).max).all())

    @cached_property
    def integral(self) -> bool:
        """Return True if all values are whole numbers."""
        return self.kind == "number" and bool(
            pa.types.is_integer(self.type) or (self.numbers == np.floor(self.numbers)).all()
        )

    @property
    def counter(self) -> bool:
        """Return True if whole numbers change by the same step in every row."""
        if self.kind != "number" or self.known != self.rows or self.rows < COUNTER_ROWS:
            return False
        steps = np.diff(self.numbers)
        return bool(steps[0] != 0 and (steps == steps[0]).all()) and self.integral

    @property
    def rising(self) -> bool:
        """Return True if no value is less than that of the row before."""
        return self.kind == "number" and self.known > 1 and bool((np.diff(self.numbers) >= 0).all())

    @property
    def indistinct(self) -> bool:
        """Return True if different integers are one number in 64-bit floating point."""
        return self.kind == "number" and self.distinct > 1 and bool(np.ptp(self.numbers) == 0)

    @property
    def too_fine(self) -> bool:
        """Return True if 32-bit floating point makes most of the values equal."""
        if self.kind != "number" or self.distinct < 2:
            return False
        numbers = self.numbers
        if np.ptp(numbers) > _NARROW * np.abs(numbers).max():
            return False
        return len(np.unique(numbers.astype(np.float32))) < min(self.distinct, len(np.unique(numbers))) / 2

    @property
    def numbers_as_text(self) -> bool:
        """Return True if a text column has numbers only."""
        return self.kind == "text" and self.known > 0 and all_match(self.values, FINITE)

    @property
    def code(self) -> bool:
        """Return True if a text column has identifiers of digits, such as ``00326``."""
        return self.numbers_as_text and bool(pc.any(pc.match_substring_regex(self.values, CODE)).as_py())


def profiles(found: FirstRows) -> dict[str, Column]:
    """Return the profiles of the columns read, by name."""
    return {name: _profile(name, values) for name, values in found.columns.items()}


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in snake case, camel case or any other."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(filter(None, _WORDS.split(apart.lower())))


def _profile(name: str, values: pa.Array) -> Column:
    kind = _kind(values.type)
    plain = _plain(values, kind)
    known = plain.drop_null()
    counts = pc.value_counts(known).field("counts") if len(known) and kind != "other" else None
    return Column(
        name=name,
        kind=kind,
        type=values.type,
        rows=len(values),
        known=len(known),
        distinct=0 if counts is None else len(counts),
        most=0 if counts is None else pc.max(counts).as_py(),
        values=known,
        words=words_of(name),
    )


def _kind(kind: pa.DataType) -> Kind:
    checks: dict[Kind, Callable[[Any], bool]] = {
        "boolean": pa.types.is_boolean,
        "number": is_numeric,
        "text": is_categorical,
        "timestamp": pa.types.is_timestamp,
        "date": pa.types.is_date,
    }
    return next((name for name, check in checks.items() if check(kind)), "other")


def _plain(values: pa.Array, kind: Kind) -> pa.Array:
    """Return the values in a countable type, with null for missing ones."""
    if kind == "text":
        text = values.cast(pa.string())
        return pc.if_else(pc.equal(text, ""), None, text)
    if pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), None, numbers)
    return values
