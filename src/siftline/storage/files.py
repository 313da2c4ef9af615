"""Durable files: written whole or not at all, sealed with a digest that is checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from siftline.errors import IntegrityError, storage_error

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def replacing(path: Path, durable: bool = True, keep: bool = False) -> Iterator[Path]:
    """Yield a temporary path; on success rename it to `path`, whose directory is created.

    Readers see the old file or the new one, never a part. On failure the temporary file is removed.

    Parameters
    ----------
    durable : bool
        Survive a power cut. Not needed for files whose digest is checked before use.
    keep : bool
        Keep a file that another process has put there meanwhile.

    Raises
    ------
    StorageError
        When the operating system refuses.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _flush(temporary)
        if not (keep and _linked(temporary, path)):
            os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with suppress(OSError):  # the error that led here is the one to report
            temporary.unlink(missing_ok=True)


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file its name, unless that is taken; return False if there are no hard links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def link(path: Path, target: str) -> bool:
    """Replace a symbolic link durably; return False if the file system has none."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.symlink_to(target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise storage_error(error, path) from error
    try:
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file or directory durably; `target` must not exist."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        _flush(target.parent)
        _flush(source.parent)
    except OSError as error:
        raise storage_error(error, target) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces), as hex."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def seal(record: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Add ``format_version`` and ``digest`` to a record, which must have neither."""
    if record.keys() & {"format_version", "digest"}:
        raise ValueError("the record has a format_version or digest of its own")
    sealed = {"format_version": version, **record}
    return {**sealed, "digest": digest(sealed)}


def unseal(record: object, version: int, name: object) -> dict[str, Any]:
    """Check a sealed record and return it without its ``format_version`` and ``digest``."""
    remedy = "delete it and run again: it is recreated"
    if not isinstance(record, dict):
        raise IntegrityError(f"{name}: not a record", remedy)
    body = {key: value for key, value in record.items() if key != "digest"}
    found = body.get("format_version")
    if found != version:
        raise IntegrityError(
            f"{name}: format version {found!r}, this version of Siftline reads {version}",
            "use the version of Siftline that wrote it, or run again with --fresh",
        )
    try:
        matches = record.get("digest") == digest(body)
    except ValueError:  # NaN, which no record contains
        matches = False
    if not matches:
        raise IntegrityError(f"{name}: its content does not match its digest", remedy)
    del body["format_version"]
    return body


def write_record(path: Path, record: Mapping[str, Any], version: int, durable: bool = True) -> None:
    """Write a sealed record as JSON, atomically."""
    with replacing(path, durable) as temporary:
        temporary.write_text(record_text(seal(record, version)))


def record_text(sealed: Mapping[str, Any]) -> str:
    """Return a sealed record as its file has it."""
    return json.dumps(sealed, indent=1, allow_nan=False) + "\n"


def open_regular(path: str, flags: int) -> int:
    """Open a file as `os.open` does; a pipe, whose writer may never come, or a device is refused."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(descriptor)
        raise IntegrityError(f"{path}: not a file", "move it away and run again: it is recreated")
    return descriptor


def read_record(path: Path, version: int) -> dict[str, Any]:
    """Read a sealed record; raise `IntegrityError` if it is torn, altered or of another version."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            record = json.loads(file.read())
    except ValueError as error:
        raise IntegrityError(f"{path}: not JSON", "delete it and run again: it is recreated") from error
    return unseal(record, version, path)
