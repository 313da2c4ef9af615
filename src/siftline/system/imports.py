"""The working directory on import paths: last in this process, absent in its children.

Anybody's file may lie there, and be named like a module of Python's or of a library's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

# Python puts neither the working directory nor a script's on the path of such a process.
SAFE_PATH = "PYTHONSAFEPATH"


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
    """Set environment variables within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _is_here(entry: str) -> bool:
    return Path(entry).resolve() == Path.cwd()


def _holds_us(entry: str) -> bool:
    """Return True if this package lies in a directory of the path, as in a checkout."""
    return Path(entry).resolve() == Path(__file__).resolve().parents[2]
