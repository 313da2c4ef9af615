"""The bytes of a CSV file: decompressed, or refused where they are no CSV."""

from __future__ import annotations

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
    b'{"': ("JSON", "convert it to CSV or Parquet"),
    b'[{"': ("JSON", "convert it to CSV or Parquet"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file with `git lfs pull`"),
}
HEAD_BYTES = 256 << 10


def compression_of(path: Path) -> str | None:
    """Return the compression by the file's first bytes; raise `SourceError` for a file that is no CSV."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise unreadable(path, error) from error
    for magic, (what, remedy) in _OTHERS.items():
        if start.startswith(magic):
            raise SourceError(f"{path}: it is {what}, not CSV", remedy)
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


def read_head(path: Path, compression: str | None, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a CSV file, decompressed."""
    with open_stream(path, compression) as stream:
        return bytes(stream.read(size))


@contextmanager
def open_stream(path: Path, compression: str | None) -> Iterator[Any]:
    """Open the decompressed bytes of a CSV file; raise `SourceError` where it cannot be read."""
    try:
        with pa.OSFile(str(path)) as file:
            if compression is None:
                yield file
            else:
                with pa.CompressedInputStream(file, compression) as stream:
                    yield stream
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
