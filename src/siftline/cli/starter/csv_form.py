"""Guesses at the form of a CSV file: encoding, header, preamble, missing numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from siftline.config.batch import CsvConfig
from siftline.source.csv.dialect import Head, detect_dialect, guess_encoding
from siftline.source.csv.text import compression_of, read_head

_MOST_BYTES = 8 << 20
_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
# Spellings of a missing number that pyarrow does not know.
_NOTHING = re.compile(r"[^\w\s]{1,5}|(?i:none|missing|unknown|nil|void)")
_FEWEST_NUMBERS = 0.5


def csv_form(path: Path) -> CsvConfig:
    """Return the settings needed to read a CSV file; others are detected."""
    form, head = _readable(path, CsvConfig(encoding=_encoding(path)))
    if _looks_like_a_row(head):
        form = form.model_copy(update={"header": False})
        head = detect_dialect(path, form)
    nothing = _nothing(head)
    if nothing:
        form = form.model_copy(update={"null_values": nothing})
    return form


def _readable(path: Path, form: CsvConfig) -> tuple[CsvConfig, Head]:
    """Return the first form with rows of one length: plain, comments, preamble, blanks."""
    head = detect_dialect(path, form)
    if _columns(head) > 1:
        return form, head
    lengths = [len(head.dialect.names), *map(len, head.rows)]
    usual = max(lengths, key=lengths.count)
    others: list[dict[str, object]] = [
        {"comment": "#"},
        {"skip_rows": _lines_above(head, lengths.index(usual))},
        {"delimiter": " "},
    ]
    for other in others:
        changed = form.model_copy(update=other)
        found = detect_dialect(path, changed)
        if found.rows and _columns(found) > 1 and all(found.dialect.names):
            return changed, found
    return form, head


def _lines_above(head: Head, row: int) -> int:
    """Return the number of lines above a row, if no field has a line break."""
    filled = [place for place, line in enumerate(head.lines) if line.strip()]
    return head.dialect.skip_rows + filled[row]


def _columns(head: Head) -> int:
    """Return the number of columns, 0 if not all rows have as many fields."""
    width = len(head.dialect.names)
    return width if all(len(row) == width for row in head.rows) else 0


def _encoding(path: Path) -> str | None:
    """Return a likely encoding of text; None for UTF-8 and marked text."""
    start = read_head(path, compression_of(path), _MOST_BYTES)
    if start.startswith(_MARKS):
        return None
    if b"\0" in start:
        # The characters of most texts have their zeros in one of two bytes.
        return "utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be"
    try:
        start.decode()
    except UnicodeDecodeError as error:
        torn = len(start) == _MOST_BYTES and error.start > len(start) - 4
        return None if torn else guess_encoding(start)
    return None


def _looks_like_a_row(head: Head) -> bool:
    """Return whether the header has numbers of a row, not years or positions."""
    names = [name.strip() for name in head.dialect.names]
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    if not head.rows or not numbers or not _fit(names, head):
        return False
    if any(not _INTEGER.fullmatch(name) for name in numbers):
        return True
    places = [int(name) for name in names] if len(numbers) == len(names) else []
    return bool(places) and not _evenly_spaced(places)


def _fit(names: Sequence[str], head: Head) -> bool:
    """Return whether the names of columns of numbers are such too, or missing."""
    plain = {*head.dialect.missing, "?", "-"}
    is_number = [
        all(_NUMBER.fullmatch(one.strip()) for one in column) for column in zip(*head.rows, strict=False)
    ]
    return all(
        _NUMBER.fullmatch(name) or name in plain
        for name, number in zip(names, is_number, strict=False)
        if number
    )


def _evenly_spaced(numbers: Sequence[int]) -> bool:
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    return len(steps) == 1 and steps != {0}


def _nothing(head: Head) -> tuple[str, ...]:
    """Return the spellings of missing numbers, if the columns have unusual ones."""
    known = set(head.dialect.missing)
    unknown: set[str] = set()
    for column in zip(*head.rows, strict=False):
        values = [value.strip() for value in column if value.strip() not in known]
        others = {value for value in values if not _NUMBER.fullmatch(value)}
        numbers = sum(value not in others for value in values)
        if others and len(others) <= 3 and numbers >= _FEWEST_NUMBERS * len(values):
            unknown |= others if all(_NOTHING.fullmatch(value) for value in others) else set()
    used = {value for row in head.rows for value in row} & known - {""}
    return tuple(sorted(unknown | used)) if unknown else ()
