"""The bytes of a CSV file: decompressed, without comments, with a line break at the end, and counted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from siftline.errors import SourceError
from siftline.source.damage import unreadable

# First bytes of compressed files, whatever their name.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_OTHERS = {
    b"PK\x03\x04": ("an Excel workbook or a zip archive", "export it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "export it as CSV"),
    b"\xfd7zXZ": ("compressed with xz", "compress it with gzip or zstd"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "compress it with gzip or zstd"),
    b"Rar!": ("a rar archive", "extract the CSV file"),
    b"7z\xbc\xaf": ("a 7z archive", "extract the CSV file"),
    b"PAR1": ("a Parquet file", "name it .parquet, or set source.format to parquet"),
    b"PARE": ("an encrypted Parquet file", "decrypt it"),
    b"ORC": ("an ORC file", "convert it to Parquet"),
    b"ARROW1": ("an Arrow file", "convert it to Parquet"),
    b"Obj\x01": ("an Avro file", "convert it to Parquet"),
    b"SQLite": ("an SQLite database", "export a table as CSV"),
    b"\x89HDF": ("an HDF5 file", "convert it to Parquet"),
    b"%PDF": ("a PDF document", "export its table as CSV"),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<!doctype": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
    b"<?xml": ("an XML file", "convert it to CSV or Parquet"),
}
HEAD_BYTES = 256 << 10


def compression_of(path: Path) -> str | None:
    """Return the compression by the file's first bytes; raise `SourceError` for a file that is no CSV."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise unreadable(path, error) from error
    for magic, (what, remedy) in _OTHERS.items():
        if start.startswith(magic):
            raise SourceError(f"{path}: it is {what}, not CSV", remedy)
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


def read_head(path: Path, compression: str | None, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a CSV file, decompressed."""
    with _stream(path, compression) as stream:
        return bytes(stream.read(size))


class CsvBytes(io.RawIOBase):
    """Bytes of a CSV file for pyarrow, decompressed; `lines` and `blank` count what was read.

    Lines that begin with `comment`, at the start of a line and outside quotes over several lines, are left
    out. `countable` is false for encodings in which a line break is not one byte.
    """

    def __init__(self, stream: Any, comment: bytes | None = None, countable: bool = True) -> None:
        super().__init__()
        self._stream = stream
        self._comment = comment
        self._countable = countable
        self._rest = b""
        self._last = b"\n"
        self.ended = False
        self.lines = 0
        self.blank = 0

    def readable(self) -> bool:
        """Return True, for pyarrow."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, empty at the end."""
        found = b""
        while not self.ended and not found:
            given = bytes(self._stream.read(size))
            self.ended = len(given) < size or not given
            # pyarrow needs a line break after the last row.
            torn = self.ended and self._countable and (self._last + given)[-1:] not in b"\n\r"
            found = self._counted(self._kept(given + b"\n" if torn else given))
        return found

    def _kept(self, given: bytes) -> bytes:
        """Leave out comments; an incomplete line waits for its end."""
        if self._comment is None:
            return given
        text = self._rest + given
        whole = len(text) if self.ended else text.rfind(b"\n") + 1
        self._rest = text[whole:]
        lines = text[:whole].splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith(self._comment))

    def _counted(self, given: bytes) -> bytes:
        if self._countable and given:
            self.lines += given.count(b"\n")
            before = self._last if self._last == b"\n\r" else self._last[-1:]
            self.blank += sum(_blank_lines((before if before.startswith(b"\n") else b"") + given))
            self._last = (self._last + given)[-2:]
        return given


def _blank_lines(text: bytes) -> Iterator[int]:
    # Pairs overlap in a run of empty lines, which bytes.count() does not see.
    for pair in (b"\n\n", b"\n\r\n"):
        position = text.find(pair)
        while position >= 0:
            yield 1
            position = text.find(pair, position + 1)


@contextmanager
def open_bytes(path: Path, compression: str | None, comment: str | None, encoding: str) -> Iterator[CsvBytes]:
    """Open the bytes of a CSV file; raise `SourceError` where it cannot be read."""
    with _stream(path, compression) as stream:
        mark = comment.encode(encoding) if comment is not None else None
        yield CsvBytes(stream, mark, countable=not encoding.lower().startswith(("utf-16", "utf-32", "utf_")))


@contextmanager
def _stream(path: Path, compression: str | None) -> Iterator[Any]:
    try:
        with pa.OSFile(str(path)) as file:
            if compression is None:
                yield file
            else:
                with pa.CompressedInputStream(file, compression) as stream:
                    yield stream
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
