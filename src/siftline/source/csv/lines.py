"""The lines of a CSV file from its header on: in UTF-8, without comments, the last one ended, and counted."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from siftline.source.csv.dialect import Dialect, parse_rows
from siftline.source.csv.text import open_stream

_UTF8 = ("utf-8", "utf-8-sig", "ascii")
_MARK = codecs.BOM_UTF8


@contextmanager
def open_lines(path: Path, dialect: Dialect) -> Iterator[CsvLines]:
    """Open the lines of a CSV file; raise `SourceError` where it cannot be read."""
    with open_stream(path, dialect.compression) as stream:
        yield CsvLines(stream, dialect)


class CsvLines(io.RawIOBase):
    """Lines of a CSV file, as bytes for pyarrow.

    `lines` and `blank` count what was read. `above` counts what was left out before the header: lines to
    skip, comments and empty lines.
    """

    def __init__(self, stream: Any, dialect: Dialect) -> None:
        super().__init__()
        self._stream = stream
        self._dialect = dialect
        plain = codecs.lookup(dialect.encoding).name in _UTF8
        self._decoder = None if plain else codecs.getincrementaldecoder(dialect.encoding)()
        self._comment = dialect.comment.encode() if dialect.comment is not None else None
        self._quote, self._delimiter = dialect.quote.encode(), dialect.delimiter.encode()
        self._first = True
        self._started = False
        self._in_quotes = False
        self._rest = b""
        self._last = b"\n"
        self.ended = False
        self.lines = 0
        self.blank = 0
        self.above = 0

    def readable(self) -> bool:
        """Return True, for pyarrow."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, empty at the end."""
        found = b""
        while not self.ended and not found:
            given = bytes(self._stream.read(size))
            self.ended = len(given) < size or not given
            found = self._kept(self._utf8(given))
            # pyarrow needs a line break after the last row.
            torn = self.ended and (self._last + found)[-1:] not in b"\n\r"
            self._count(found := found + b"\n" if torn else found)
        return found

    def _utf8(self, given: bytes) -> bytes:
        text = given if self._decoder is None else self._decoder.decode(given, self.ended).encode()
        marked, self._first = self._first, False
        return text.removeprefix(_MARK) if marked else text

    def _kept(self, given: bytes) -> bytes:
        """Leave out lines; an incomplete one waits for its end."""
        text, self._rest = self._rest + given, b""
        if self._started and self._comment is None:
            return text
        if not self.ended:
            whole = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
            text, self._rest = text[:whole], text[whole:]
        return b"".join(line for line in text.splitlines(keepends=True) if self._keeps(line))

    def _keeps(self, line: bytes) -> bool:
        if self._started and self._comment is None:
            return True
        if self.above < self._dialect.skip_rows or self._is_comment(line) or self._is_above_header(line):
            self.above += not self._started
            return False
        self._started = True
        if self._quote:
            self._in_quotes = _ends_in_quotes(line, self._in_quotes, self._quote, self._delimiter)
        return True

    def _is_comment(self, line: bytes) -> bool:
        if self._comment is None or self._in_quotes or not line.startswith(self._comment):
            return False
        dialect = self._dialect
        if not dialect.comment_detected:
            return True
        rows = parse_rows([line.decode(errors="replace")], dialect.delimiter, dialect.quote)
        return len(rows[0]) != len(dialect.names)

    def _is_above_header(self, line: bytes) -> bool:
        return not self._started and self._dialect.header and not line.strip()

    def _count(self, given: bytes) -> None:
        if given:
            self.lines += given.count(b"\n")
            before = self._last if self._last == b"\n\r" else self._last[-1:]
            self.blank += sum(_blank_lines((before if before.startswith(b"\n") else b"") + given))
            self._last = (self._last + given)[-2:]


def _ends_in_quotes(line: bytes, in_quotes: bool, quote: bytes, delimiter: bytes) -> bool:
    """Return True if the last field of a line has an opening quote and no closing one."""
    place = 0
    while True:
        if in_quotes or line.startswith(quote, place):
            place = _closing(line, place if in_quotes else place + len(quote), quote)
            if place < 0:
                return True
        in_quotes = False
        cut = line.find(delimiter, place)
        if cut < 0:
            return False
        place = cut + len(delimiter)


def _closing(line: bytes, place: int, quote: bytes) -> int:
    """Return the place after the next quote that is not doubled; -1 without one."""
    while (end := line.find(quote, place)) >= 0:
        place = end + len(quote)
        if not line.startswith(quote, place):
            return place
        place += len(quote)
    return -1


def _blank_lines(text: bytes) -> Iterator[int]:
    # Pairs overlap in a run of empty lines, which bytes.count() does not see.
    for pair in (b"\n\n", b"\n\r\n"):
        position = text.find(pair)
        while position >= 0:
            yield 1
            position = text.find(pair, position + 1)
