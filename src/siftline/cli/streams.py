"""Output without errors: for a lost reader, a full disk, a small character set."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ERRORS = "siftline.escape"


class _Output(io.FileIO):
    """A file descriptor without output after a failed write; `failed` is the first error."""

    failed: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        if self.failed is None:
            try:
                return super().write(data) or 0
            except BlockingIOError:
                raise
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes


def make_output_safe() -> None:
    """Replace the output streams of this process by safe ones."""
    codecs.register_error(_ERRORS, _escape)
    for number in (0, 1, 2):
        _fill(number)
    sys.stdout = _safe(sys.stdout, 1)
    sys.stderr = _safe(sys.stderr, 2)


def lost_output() -> OSError | None:
    """Return the error that cut stdout off, unless its reader had enough."""
    error = _failure(sys.stdout)
    return None if error is None or error.errno == errno.EPIPE else error


def reader_left() -> bool:
    """Return True once stdout has no reader any more."""
    return _failure(sys.stdout) is not None


def _failure(stream: TextIO) -> OSError | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failed if isinstance(raw, _Output) else None


def _fill(number: int) -> None:
    """Open a closed standard stream: a file of ours must not take its place."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _safe(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # a test's, or a notebook's
    encoding = stream.encoding if stream is not None else "utf-8"
    if stream is not None:
        stream.flush()
    buffer = io.BufferedWriter(_Output(number, "wb", closefd=False))
    lines = stream is None or stream.line_buffering or stream.write_through or number == 2
    return io.TextIOWrapper(buffer, encoding, _ERRORS, line_buffering=lines)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape characters beyond an encoding as JSON does, so that JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
