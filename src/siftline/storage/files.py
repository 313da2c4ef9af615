"""Durable files: written whole or not at all, sealed with a digest, refused when they don't match."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from siftline.errors import IntegrityError, storage_error


@contextmanager
def replacing(path: Path, durable: bool = True, keep: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success make it durable and rename it to `path`.

    Readers see the old file or the new one, never a part. On any failure the temporary file is gone.

    Parameters
    ----------
    path : Path
        The file to write or replace; its directory is made.
    durable : bool
        Whether it must survive a power cut. What carries a digest that is checked before use need not.
    keep : bool
        If the file is there by then, because somebody else made the same one, leave that.

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
    """Give a file its name, unless that is taken; false where there are no hard links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            return False
        raise
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file or directory durably; `target` must not exist.

    Raises
    ------
    StorageError
        When the operating system refuses.
    """
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
    """Give a record its ``format_version`` and ``digest``, which must not be fields of its own."""
    if record.keys() & {"format_version", "digest"}:
        raise ValueError("the record has a format_version or digest of its own")
    sealed = {"format_version": version, **record}
    return {**sealed, "digest": digest(sealed)}


def unseal(record: object, version: int, name: object) -> dict[str, Any]:
    """Check a sealed record and return it without its ``format_version`` and ``digest``.

    Raises
    ------
    IntegrityError
        When it is no record, of another version, or not what its digest says.
    """
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
    except ValueError:  # NaN, which no record holds
        matches = False
    if not matches:
        raise IntegrityError(f"{name}: its content does not match its digest", remedy)
    del body["format_version"]
    return body


def write_record(path: Path, record: Mapping[str, Any], version: int) -> None:
    """Write a sealed record as JSON, atomically.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(seal(record, version), indent=1, allow_nan=False) + "\n")


def read_record(path: Path, version: int) -> dict[str, Any]:
    """Read a sealed record back.

    Raises
    ------
    FileNotFoundError
        When there is none.
    IntegrityError
        When it is torn, of another version, or altered.
    """
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise IntegrityError(f"{path}: not JSON", "delete it and run again: it is recreated") from error
    return unseal(record, version, path)
