"""Finding files: directories, links and globs. Every real directory and file counts once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from siftline.errors import SourceError
from siftline.source.damage import unreadable

_SPECIAL = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}


def is_directory(path: Path) -> bool | None:
    """Return whether a path leads to a directory or a regular file; None if to nothing.

    Anything else, such as a pipe or a broken link, raises `SourceError`: opening it might never return.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            what = f"{path}: a link to {path.readlink()}, where there is nothing"
            raise SourceError(what, "correct or remove it") from None
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        kind = next((name for matches, name in _SPECIAL.items() if matches(mode)), "a device")
        raise SourceError(f"{path}: {kind}, not a file", "write the rows to a file first")
    return stat.S_ISDIR(mode)


def files_below(root: Path) -> Iterator[Path]:
    """Yield the files in and below a directory, without hidden ones: ``.name`` and ``_name``."""
    for directory in _directories(root, (".", "_")):
        for entry in _entries(directory):
            if not entry.name.startswith((".", "_")) and is_directory(entry) is False:
                yield entry


def matching(pattern: Path) -> Iterator[Path]:
    """Yield the files and directories that match a glob; a name that exists is not a pattern."""
    yield from dict.fromkeys(_expand(Path(pattern.anchor), pattern.relative_to(pattern.anchor).parts))


def literal_part(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the beginning of a glob without wildcards, and the rest of its names."""
    path, parts = Path(pattern.anchor), pattern.relative_to(pattern.anchor).parts
    while parts and (not _is_pattern(parts[0]) or _exists(path / parts[0])):
        path, parts = path / parts[0], parts[1:]
    return path, parts


def once(paths: Iterable[Path]) -> list[Path]:
    """Return paths in order, each real file once: links give way to the file itself."""
    chosen: dict[str, Path] = {}
    parents: dict[Path, str] = {}
    for path in sorted(set(paths)):
        parent = parents.get(path.parent) or parents.setdefault(path.parent, os.path.realpath(path.parent))
        link = path.is_symlink()
        real = os.path.realpath(path) if link else f"{parent}/{path.name}"
        if real not in chosen or (chosen[real].is_symlink() and not link):
            chosen[real] = path
    return sorted(chosen.values())


def _expand(path: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        if _exists(path):
            yield path
    elif parts[0] == "**":
        for directory in _directories(path, (".",)) if is_directory(path) else ():
            yield from _expand(directory, parts[1:]) if parts[1:] else _entries(directory)
    elif not _is_pattern(parts[0]) or _exists(path / parts[0]):
        yield from _expand(path / parts[0], parts[1:])
    elif _is_directory(path):
        hidden = parts[0].startswith(".")
        for entry in _entries(path):
            if fnmatchcase(entry.name, parts[0]) and (hidden or not entry.name.startswith(".")):
                yield from _expand(entry, parts[1:])


def _directories(root: Path, hidden: tuple[str, ...]) -> Iterator[Path]:
    """Yield a directory and those below it, each real one once: those that are not links first."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    links: list[Path] = []
    while waiting or links:
        directory = (waiting or links).pop()
        status = directory.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield directory
        for entry in reversed(_entries(directory)):
            if not entry.name.startswith(hidden) and _is_directory(entry):
                (links if entry.is_symlink() else waiting).append(entry)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise unreadable(directory, error) from error


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


# Not of pathlib, whose own raise what these answer with False.
def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_directory(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112
