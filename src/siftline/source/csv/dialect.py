"""Detection of the form of a CSV file, from its first rows, where that is safe.

What the configuration sets is not looked at. A delimiter counts if it cuts every row into the same number of
fields; a decimal comma or a separator of thousands, if no other reading of a column is possible.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from siftline.config.batch import CsvConfig
from siftline.errors import SourceError
from siftline.source.csv.numbers import decimal_marks
from siftline.source.csv.text import HEAD_BYTES, compression_of, read_head

T = TypeVar("T")
# pyarrow's own.
_NULLS = tuple(pcsv.ConvertOptions().null_values)
DELIMITERS = (",", ";", "\t", "|")
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_MOST_ROWS = 1_000
_BLANK = " \t\r\n\v\f"  # of bytes.strip
_MOSTLY = 0.9
_SEPARATOR_LINE = re.compile(r"(?i:sep)=(.)")


@dataclass(frozen=True)
class Dialect:
    """The form of one CSV file.

    `names` are those of the header, as they are: empty or repeated ones too. `missing` are the spellings of
    a missing number. If `comment_detected`, a line with a field for each name is a row nevertheless.
    """

    compression: str | None
    encoding: str
    delimiter: str
    quote: str
    decimal: str
    thousands: str | None
    comment: str | None
    skip_rows: int
    header: bool
    missing: tuple[str, ...]
    names: tuple[str, ...]
    comment_detected: bool = False

    @property
    def empty_lines_are_rows(self) -> bool:
        """Return True if an empty line is a row whose only value is missing."""
        return len(self.names) == 1

    def is_missing(self, texts: pa.Array) -> pa.Array:
        """Return which texts stand for a missing value."""
        return pc.is_in(texts, value_set=pa.array(self.missing, pa.string()))

    def detected(self, config: CsvConfig) -> dict[str, str | int]:
        """Return what differs from a plain file and is not configured, by field of `source.csv`."""
        found = {
            "delimiter": (self.delimiter, ","),
            "decimal": (self.decimal, "."),
            "thousands": (self.thousands, None),
            "encoding": (self.encoding, "utf-8"),
            "comment": (self.comment, None),
            "skip_rows": (self.skip_rows, 0),
        }
        return {
            name: value
            for name, (value, plain) in found.items()
            if value is not None and value not in (plain, "utf-8-sig") and not getattr(config, name)
        }


@dataclass(frozen=True)
class Head:
    """The first rows of a file, as text, and its dialect; `whole` is true if there are no others.

    `lines` are those from the header on, and empty ones before.
    """

    dialect: Dialect
    rows: list[list[str]]
    whole: bool
    lines: list[str]


def detect_dialect(path: Path, config: CsvConfig) -> Head:
    """Return the dialect of a CSV file and its first rows.

    Raises
    ------
    SourceError
        When the file is empty, cannot be read, is no CSV, or is not in the encoding.
    """
    compression = compression_of(path)
    start = read_head(path, compression)
    if not start.strip():
        raise SourceError(f"{path}: the file is empty", "replace it, or leave it out of source.path")
    whole = len(start) < HEAD_BYTES
    encoding = config.encoding or _encoding(path, start)
    lines = _lines(path, start, encoding, whole)
    skip, delimiter, comment = _above(lines[config.skip_rows :], config)
    skip, comment = config.skip_rows + skip, config.comment or comment
    lines = lines[skip:]
    if comment is not None:
        lines = [line for line in lines if not line.startswith(comment)]
    filled = list(dropwhile(lambda line: not line.strip(_BLANK), lines)) if config.header else lines
    delimiter = config.delimiter or delimiter or _delimiter(lines, config.quote)
    rows = parse_rows(filled, delimiter, config.quote, whole)
    if not rows:
        raise SourceError(f"{path}: no rows, not even a header", "check source.csv.skip_rows and comment")
    names, rows = _names(rows, config.header)
    decimal, thousands = decimal_marks(rows, config)
    dialect = Dialect(
        compression=compression,
        encoding=encoding,
        delimiter=delimiter,
        quote=config.quote,
        decimal=decimal,
        thousands=thousands,
        comment=comment,
        skip_rows=skip,
        header=config.header,
        missing=_NULLS if config.null_values is None else ("", *config.null_values),
        names=tuple(names),
        comment_detected=comment is not None and config.comment is None,
    )
    return Head(dialect, rows, whole, lines)


def by_name(names: Iterable[str], values: Iterable[T]) -> dict[str, T]:
    """Return the values of columns by name; the first one counts where a name is there twice."""
    found: dict[str, T] = {}
    for name, value in zip(names, values, strict=True):
        found.setdefault(name, value)
    return found


def guess_encoding(start: bytes) -> str:
    """Return the likely encoding of text that is not UTF-8: cp1252, or latin-1 where that is impossible."""
    try:
        start.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _encoding(path: Path, start: bytes) -> str:
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4 or len(start) < HEAD_BYTES:
            line = start.count(b"\n", 0, error.start) + 1
            raise not_utf8(path, f"line {line}") from None
    if b"\x00" in start:
        raise SourceError(
            f"{path}: it contains NUL bytes, so it is no UTF-8 text",
            "set source.csv.encoding, for example to utf-16-le, or replace the file",
        )
    return "utf-8"


def not_utf8(path: Path, where: str) -> SourceError:
    """Return the error of text in another encoding."""
    return SourceError(
        f"{path}, {where}: the text is not UTF-8",
        "set source.csv.encoding, for example to cp1252 (Western Europe), or convert the file",
    )


def _lines(path: Path, start: bytes, encoding: str, whole: bool) -> list[str]:
    """Return the decoded lines, without the last one where it may be incomplete."""
    try:
        text = start.decode(encoding, errors="strict" if whole else "ignore")
    except UnicodeError:
        remedy = "correct source.csv.encoding"
        raise SourceError(f"{path}: the text is not in the encoding {encoding}", remedy) from None
    lines = _split(text)
    return lines if whole or len(lines) < 2 else lines[:-1]


def _split(text: str) -> list[str]:
    """Split at line breaks only: str.splitlines() also splits at separators that are text here."""
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", text.removeprefix("\ufeff"))


def parse_rows(lines: Sequence[str], delimiter: str, quote: str, whole: bool = True) -> list[list[str]]:
    """Return the fields of the first rows, without empty ones; a row that may be incomplete is left out."""
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > _MOST_ROWS:
                return rows
    except csv.Error:  # a field of more than 128 KiB
        return rows
    in_quotes = bool(rows) and any("\n" in field for field in rows[-1])
    return rows if whole or not in_quotes else rows[:-1]


def _above(lines: Sequence[str], config: CsvConfig) -> tuple[int, str | None, str | None]:
    """Return the lines to skip, the delimiter and the character of comments, by the first lines.

    ``sep=;`` is a line for Excel. ``#`` begins comments if the file begins with some, and no row does.
    """
    first = next((line for line in lines if line.strip()), "")
    separator = _SEPARATOR_LINE.fullmatch(first.strip("\r\n"))
    if separator and config.delimiter in (None, separator[1]):
        return lines.index(first) + 1, separator[1], None
    if not first.startswith("#") or config.comment is not None:
        return 0, None, None
    others = [line for line in lines if not line.startswith("#")]
    delimiter = config.delimiter or _delimiter(others, config.quote)
    counts = [len(row) for row in parse_rows(others, delimiter, config.quote, whole=False)]
    widths = {*counts[:1], *counts[1:2]}
    is_row = [
        line.startswith("#") and len(parse_rows([line], delimiter, config.quote)[0]) in widths
        for line in lines[:_MOST_ROWS]
    ]
    if not widths or is_row[lines.index(first)]:
        return 0, None, None
    if not any(is_row):
        return 0, None, "#"
    top = takewhile(lambda place: lines[place][:1] in "#\r\n" and not is_row[place], range(len(is_row)))
    return len(list(top)), None, None


def _delimiter(lines: Sequence[str], quote: str) -> str:
    """Return the delimiter that cuts all rows alike, else the one that cuts most like the header."""
    alike: dict[str, int] = {}
    mostly: dict[str, float] = {}
    for delimiter in DELIMITERS:
        counts = [len(row) for row in parse_rows(lines, delimiter, quote, whole=False)]
        if not counts or max(counts) < 2:
            continue
        of_rows = set(counts[1:]) or set(counts)
        if len(of_rows) == 1 and counts[0] in (*of_rows, *(count - 1 for count in of_rows)) and counts[0] > 1:
            alike[delimiter] = counts[0]
        share = counts.count(counts[0]) / len(counts)
        if counts[0] > 1 and share >= _MOSTLY:
            mostly[delimiter] = share
    if "," in alike or not (alike or mostly):
        return ","
    return max(alike, key=alike.__getitem__) if alike else max(mostly, key=mostly.__getitem__)


def _names(rows: list[list[str]], header: bool) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns, and the rows below the header."""
    if not header:
        return [f"column_{number}" for number in range(1, len(rows[0]) + 1)], rows
    names, below = rows[0], rows[1:]
    if below and all(len(row) == len(names) + 1 for row in below):
        # R leaves the name of the row names out; other programs end each row with a delimiter.
        trailing = not any(row[-1] for row in below)
        names = [*names, ""] if trailing else ["", *names]
    return names, below
