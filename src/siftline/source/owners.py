"""Directories of others: tables whose files are not their rows, and what Siftline itself has written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from siftline.errors import SourceError
from siftline.storage.layout import CheckpointFiles, JobFiles, OutputFiles

_EXPORT = "export its current rows to Parquet, and give the path of these files"
_ELSEWHERE = "give a path without it"


def _is_iceberg(directory: Path) -> bool:
    metadata = directory / "metadata"
    return os.path.isdir(metadata) and any(metadata.glob("*.metadata.json*"))  # noqa: PTH112


def _has(name: str) -> Callable[[Path], bool]:
    return lambda directory: os.path.isdir(directory / name)  # noqa: PTH112


def _is_result(directory: Path) -> bool:
    files = OutputFiles(directory)
    return os.path.isdir(files.publications) and os.path.lexists(files.manifest)  # noqa: PTH112


def _is_job(directory: Path) -> bool:
    files = JobFiles(directory)
    return files.checkpoint.job(directory.name).directory == directory and os.path.isfile(files.plan)  # noqa: PTH113


def _is_staged(directory: Path) -> bool:
    checkpoint = CheckpointFiles(directory.parent)
    return checkpoint.staged == directory and os.path.isdir(checkpoint.root / "jobs")  # noqa: PTH112


_TABLES: Mapping[str, Callable[[Path], bool]] = {
    "a Delta table": _has("_delta_log"),
    "a Hudi table": _has(".hoodie"),
    "an Iceberg table": _is_iceberg,
}
_OURS = {
    "a result": _is_result,
    "a job in a checkpoint": _is_job,
}
_STAGED = {"a checkpoint": _is_staged}


def homes(files: Iterable[Path]) -> list[Path]:
    """Return the directories of files, each once: by their names, and where links lead."""
    found: dict[Path, None] = {}
    for parent, siblings in groupby(files, key=lambda file: file.parent):
        links = [file for file in siblings if file.is_symlink()]
        real = [Path(os.path.realpath(parent)), *(Path(os.path.realpath(link)).parent for link in links)]
        found |= dict.fromkeys([parent.absolute(), *real])
    return list(found)


def refuse_tables(directories: Iterable[Path]) -> None:
    """Raise `SourceError` if a directory is in or below a table of Delta, Iceberg or Hudi."""
    for directory, kind in _owned(directories, _TABLES):
        raise SourceError(f"{directory}: {kind}, whose files also have former rows", _EXPORT)


def refuse_own(directories: Iterable[Path], staged: bool) -> None:
    """Raise `SourceError` if a directory is in or below a result or a job of Siftline, or `staged` input."""
    for directory, kind in _owned(directories, _OURS if staged else _OURS | _STAGED):
        raise SourceError(f"{directory}: {kind} of Siftline, not input", _ELSEWHERE)


def _owned(
    directories: Iterable[Path], kinds: Mapping[str, Callable[[Path], bool]]
) -> Iterator[tuple[Path, str]]:
    """Yield each of the directories, and of those above, that is owned, with its kind."""
    seen: set[Path] = set()
    for start in directories:
        for directory in (start, *start.parents):
            if directory in seen:
                break
            seen.add(directory)
            for kind, matches in kinds.items():
                if matches(directory):
                    yield directory, kind
