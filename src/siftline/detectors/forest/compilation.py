"""The kernels of this process: when they are compiled, and where that is kept.

Compiling takes seconds, once a machine; loading what was compiled takes a fraction of one, once a process.
Until that pays, scikit-learn does the scoring, with the same result. When does it pay? It is the ski rental
problem: rent until the rent has come to the price, then buy, and you never pay more than twice what somebody
pays who knows the future.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from siftline.errors import StorageError
from siftline.signals import signals_deferred
from siftline.storage.files import digest, file_digest
from siftline.storage.locks import locked

logger = logging.getLogger(__name__)

# Seconds of a core, measured: to compile or load, imports included, and for a row with the usual 100 trees.
_COMPILE_SECONDS = 3.0
_LOAD_SECONDS = 0.7
_SECONDS_A_ROW = 3.3e-6

_SLOWER = "isolation forests are scored by scikit-learn, which takes many times as long"

_SOURCES = Path(__file__).parent

_busy = threading.Lock()
_kernels: Any = None
_given_up = False
_rent = 0.0
_said = False


def prepare(rows: int) -> None:
    """Have the kernels ready, if that pays for so many rows of a job."""
    if rows * _SECONDS_A_ROW > _price():
        _load()


def preload() -> None:
    """Load the kernels if they are compiled: so does the process that workers are forked from."""
    if _is_compiled():
        _load()


def lacking(rows: int) -> str | None:
    """Say what is missing here that a job of so many rows would want; None, if nothing is."""
    if find_spec("numba") is not None or rows * _SECONDS_A_ROW <= _COMPILE_SECONDS:
        return None
    return f"{_SLOWER}: numba is not installed, which comes with siftline[fast]"


def pay_rent(seconds: float) -> None:
    """Say how many seconds of a core scikit-learn took, where kernels would have done the work."""
    global _rent
    _rent += seconds


def find_kernels() -> Any:
    """Return the module of the kernels, or None while it does not pay, or for good."""
    if _kernels is None and _rent > 0 and _rent > _price():
        _load()
    return _kernels


def _price() -> float:
    return _LOAD_SECONDS if _is_compiled() else _COMPILE_SECONDS


def _is_compiled() -> bool:
    directory = _directory()
    return directory is not None and (directory / "compiled").exists()


def _load() -> None:
    """Load or compile the kernels, unless another thread or process is at it: it need not be waited for."""
    global _kernels, _given_up
    if _kernels is not None or _given_up or not _busy.acquire(blocking=False):
        return
    try:
        with _one_process(_directory()) as alone:
            if alone or _is_compiled():
                _kernels = _import(_directory())
    except ImportError as error:
        _given_up = True
        logger.info("%s: %s", _SLOWER, error)  # who started the job has said so, or else hundreds would
    except Exception as error:  # noqa: BLE001  # whatever it is, there is scikit-learn
        _given_up = True
        say_slower(error)
    finally:
        _busy.release()


def _import(directory: Path | None) -> Any:
    with _cache_in(directory), signals_deferred():  # a stop amid an import gets lost
        kernels = import_module("siftline.detectors.forest.kernels")
    if directory is not None:
        with suppress(OSError):
            if kernels.add_depths.stats.cache_path is not None:
                (directory / "compiled").touch()
            else:  # what is there is damaged: the next process makes it anew
                (directory / "compiled").unlink(missing_ok=True)
                for kept in directory.glob("*/"):
                    shutil.rmtree(kept)
    return kernels


@contextmanager
def _cache_in(directory: Path | None) -> Iterator[None]:
    """Have numba keep there what it compiles; without a directory it looks for one itself."""
    from numba import config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(directory or before)
    try:
        yield
    finally:
        config.CACHE_DIR = before


@contextmanager
def _one_process(directory: Path | None) -> Iterator[bool]:
    """Keep other processes from compiling; yield False if one already is."""
    with ExitStack() as stack:
        alone = True
        if directory is not None:
            with suppress(StorageError):  # without a lock, each process compiles for itself
                alone = stack.enter_context(locked(directory / "lock"))
        yield alone


@cache
def _directory() -> Path | None:
    """Make the directory for these versions and this processor, if that can be."""
    try:
        versions = [platform.python_version(), version("numba"), version("llvmlite"), version("numpy")]
        sources = [str(_SOURCES), *(file_digest(path) for path in sorted(_SOURCES.glob("*.py")))]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = home / "siftline" / f"kernels-{digest([versions, sources, _processor()])[:16]}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What is loaded from there is run.
        return directory if all(map(_is_ours, (directory.parent, directory))) else None
    except (OSError, RuntimeError, PackageNotFoundError):
        return None


def _is_ours(directory: Path) -> bool:
    """Whether it is a directory of this user's, in which not everybody may write."""
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & stat.S_IWOTH


def _processor() -> list[str]:
    """Tell processors apart as compilers do: by model and by what they can do."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0].splitlines() if info.exists() else []
    told = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
    return [platform.machine(), platform.processor(), *(line for line in first if line.startswith(told))]


def say_slower(why: Exception | str) -> None:
    """Say why forests are scored by scikit-learn, in one line, once."""
    global _said
    if not _said:
        _said = True
        reason = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
        logger.warning("%s: %s", _SLOWER, " ".join(reason.split()))
