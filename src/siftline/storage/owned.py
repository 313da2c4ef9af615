"""Names of Siftline's own files: those that records may have, and those that it may remove.

A record may be altered, and a directory replaced by a link. So a recorded name counts only if it is a plain
name in the record's own directory, and only names of our own forms are removed, never through a link.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from siftline.errors import StorageError, storage_error

_PLAIN = re.compile(r"\.?[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_JOB, _TOKEN = "[0-9a-f]{16}", "[0-9a-f]{8}"
PUBLICATION = re.compile(f"{_JOB}-{_TOKEN}-{_TOKEN}")
FORMER = re.compile(rf"former-[a-z.]+-{_TOKEN}")
TEMPORARY = re.compile(rf"\..+\.{_TOKEN}\.tmp")
SCORES = re.compile(rf"part-\d+(-{_TOKEN})?\.parquet")
CHUNK = re.compile(rf"chunk-\d{{7,}}-{_TOKEN}(-candidates)?\.parquet|{TEMPORARY.pattern}")
_STAGED = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{16})?\.parquet")
# In the directory of a job, until a fresh start.
WORK = re.compile(rf"(parts|failed)-{_TOKEN}|receipts|model|plan\.json|detector\.json")


def plain_name(name: str) -> str:
    """Return a name that is one of a file, without a directory; else raise ValueError."""
    if not _PLAIN.fullmatch(name):
        raise ValueError("not a plain file name")
    return name


def inner_name(name: str) -> str:
    """Return a name that is one of a file within a directory; else raise ValueError."""
    for part in name.split("/"):
        plain_name(part)
    return name


def temporaries_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return the form of the temporary names of files, see `siftline.storage.files.replacing`."""
    return re.compile(rf"\.({'|'.join(map(re.escape, names))})\.{_TOKEN}\.tmp")


PlainName = Annotated[str, AfterValidator(plain_name)]
InnerName = Annotated[str, AfterValidator(inner_name)]
Token = Annotated[str, StringConstraints(pattern=f"^{_TOKEN}$")]


def refuse_links(paths: Iterable[Path]) -> None:
    """Raise `StorageError` if a path, where something is to be written or removed, is a link."""
    for path in paths:
        if path.is_symlink():
            problem = f"{path}: is a link, and Siftline does not write through it"
            raise StorageError(problem, "remove it: only output.path and checkpoint.path may be links")


def remove_own(directory: Path, form: re.Pattern[str], keep: Collection[str | None] = ()) -> None:
    """Remove what has names of a form in a directory; nothing if that is a link or not there."""
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        for name in os.listdir(opened):  # noqa: PTH208  by its descriptor
            if form.fullmatch(name) and name not in keep:
                _remove(name, opened)
    except OSError as error:
        raise storage_error(error, directory) from error
    finally:
        os.close(opened)


def remove_publications(staged: Path, job_id: str, token: str) -> None:
    """Remove what one start of a job has staged: the same job in another checkpoint has another token."""
    remove_own(staged, re.compile(f"{re.escape(job_id)}-{re.escape(token)}-{_TOKEN}"))


def remove_staged(path: Path) -> None:
    """Remove a copy of input, if its name is one that a copy has."""
    if _STAGED.fullmatch(path.name):
        remove_own(path.parent, re.compile(re.escape(path.name)))


def _remove(name: str, directory: int) -> None:
    """Remove an entry of an open directory: of a link, the link."""
    with suppress(OSError):  # another run removes it too
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
