"""Errors on reading files of the source."""

from __future__ import annotations

import errno
import os

from siftline.errors import SourceError, SourceUnavailable, may_pass
from siftline.shown import shown

_LONGEST = 200


def unreadable(path: object, error: Exception) -> SourceError:
    """Map an error of pyarrow or the operating system to a `SourceError`; transient ones can be retried."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path}: no such file", "put it back, or correct source.path")
    if isinstance(error, PermissionError):
        return SourceError(f"{path}: permission denied", "make it readable for this user")
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return SourceError(f"{path}: {os.strerror(error.errno).lower()}", "correct source.path")
    if may_pass(error):
        what = f"{path}: cannot be read just now: {os.strerror(error.errno or 0)}"
        return SourceUnavailable(what, "check the storage; it is tried again")
    return damaged(path, str(error))


def damaged(path: object, what: str) -> SourceError:
    """Return the error for a file with other content than it should have."""
    problem = f"{path}: cannot be read: {shown(what, _LONGEST)}"
    return SourceError(problem, "replace the file with an intact one")
