"""The working directory on import paths: last in this process, absent in its children.

Anybody's file may lie there, and be named like a module of Python's or of a library's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

# Python puts neither the working directory nor a script's on the path of such a process.
SAFE_PATH = "PYTHONSAFEPATH"
_lock = threading.Lock()
# Variables that are set at present: by how many blocks, and their values before.
_set: dict[str, tuple[int, str | None]] = {}


def import_own(path: str) -> Any:
    """Import an object of the user's as ``module:name``, also from the working directory."""
    if not any(_is_here(entry) for entry in sys.path):
        sys.path.append(str(Path.cwd()))  # for good: a function may import more when it is called
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def put_working_directory_last() -> None:
    """Keep modules of the working directory from shadowing others."""
    here = [entry for entry in sys.path if _is_here(entry)]
    sys.path[:] = [entry for entry in sys.path if entry not in here] + here


@contextmanager
def children_import_safely() -> Iterator[None]:
    """Keep the working directory off the path of the Python processes started within the block."""
    values = {SAFE_PATH: "1"}
    if "PYTHONPATH" in os.environ:  # Prefect puts the working directory of a run there
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        kept = [entry for entry in entries if not _is_here(entry) or _holds_us(entry)]
        values["PYTHONPATH"] = os.pathsep.join(kept)
    with environment(values):
        yield


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block; blocks of several threads may overlap."""
    with _lock:
        for name, value in values.items():
            blocks, before = _set.get(name, (0, os.environ.get(name)))
            _set[name] = blocks + 1, before
            os.environ[name] = value
    try:
        yield
    finally:
        with _lock:
            for name in values:
                blocks, before = _set.pop(name)
                if blocks > 1:
                    _set[name] = blocks - 1, before
                elif before is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = before


def _is_here(entry: str) -> bool:
    return Path(entry).resolve() == Path.cwd()


def _holds_us(entry: str) -> bool:
    """Return True if this package lies in a directory of the path, as in a checkout."""
    return Path(entry).resolve() == Path(__file__).resolve().parents[2]
