"""The compiled kernels of a process: when they are compiled, and where they are cached.

Compiling takes seconds, once per machine; loading the result takes a fraction of one, once per process.
Until that pays, scikit-learn scores, with the same result. When it pays is the ski rental problem: rent until
the rent has reached the price, then buy, and you never pay more than twice the optimum.
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
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from siftline.errors import StorageError
from siftline.storage.files import digest, file_digest
from siftline.storage.locks import locked
from siftline.system.signals import signals_deferred

logger = logging.getLogger(__name__)

_SLOWER = "isolation forests are scored by scikit-learn, which takes many times as long"
_SOURCES = Path(__file__).parent


class Kernels:
    """Kernels, loaded or compiled as soon as that pays; `KERNELS` are those of the process.

    Compiled code is kept in `cache` (default: in the user's cache). Times are measured, in seconds of a
    core, imports included; scikit-learn takes `row_seconds` for a row with the usual 100 trees.
    """

    def __init__(
        self,
        cache: Path | None = None,
        compile_seconds: float = 3.0,
        load_seconds: float = 0.7,
        row_seconds: float = 3.3e-6,
    ) -> None:
        self.compile_seconds, self.load_seconds, self.row_seconds = compile_seconds, load_seconds, row_seconds
        self._cache = cache
        self._loading = threading.Lock()
        self._module: Any = None
        self._failed = False
        self._warned = False
        self._rent = 0.0

    def prepare(self, rows: int) -> None:
        """Load or compile the kernels, if that pays for a job of that many rows."""
        if rows * self.row_seconds > self._price():
            self._load()

    def preload(self) -> None:
        """Load the kernels if they are compiled already."""
        if self._is_compiled():
            self._load()

    def lacking(self, rows: int) -> str | None:
        """Name an optional library that is missing and would pay off for that many rows, if any."""
        if find_spec("numba") is not None or rows * self.row_seconds <= self.compile_seconds:
            return None
        return f"{_SLOWER}: numba is not installed, which comes with siftline[fast]"

    def pay_rent(self, seconds: float) -> None:
        """Count core seconds that scikit-learn took in place of kernels."""
        self._rent += seconds

    def find(self) -> Any:
        """Return the module of the kernels, or None as long as it does not pay or cannot be loaded."""
        if self._module is None and self._rent > 0 and self._rent > self._price():
            self._load()
        return self._module

    def warn_slower(self, reason: Exception) -> None:
        """Log once, in one line, why scikit-learn scores."""
        if not self._warned:
            self._warned = True
            logger.warning("%s: %s", _SLOWER, " ".join(f"{type(reason).__name__}: {reason}".split()))

    @cached_property
    def directory(self) -> Path | None:
        """Directory for these versions and this processor; None where it would not be safe or possible."""
        try:
            versions = [platform.python_version(), version("numba"), version("llvmlite"), version("numpy")]
            sources = [str(_SOURCES), *(file_digest(path) for path in sorted(_SOURCES.glob("*.py")))]
            home = self._cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            directory = home / "siftline" / f"kernels-{digest([versions, sources, processor()])[:16]}"
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Code is loaded from there, and run.
            return directory if all(map(_is_private, (directory.parent, directory))) else None
        except (OSError, RuntimeError, PackageNotFoundError):
            return None

    def _price(self) -> float:
        return self.load_seconds if self._is_compiled() else self.compile_seconds

    def _is_compiled(self) -> bool:
        return self.directory is not None and (self.directory / "compiled").exists()

    def _load(self) -> None:
        """Load or compile the kernels, unless another thread or process is doing so."""
        if self._module is not None or self._failed or not self._loading.acquire(blocking=False):
            return
        try:
            with _only_process(self.directory) as alone:
                if alone or self._is_compiled():
                    self._module = _import(self.directory)
        except ImportError as error:
            self._failed = True
            logger.info("%s: %s", _SLOWER, error)  # no warning: the job has emitted one for all its workers
        except Exception as error:  # noqa: BLE001  # whatever fails, scikit-learn still scores
            self._failed = True
            self.warn_slower(error)
        finally:
            self._loading.release()


KERNELS = Kernels()


def _import(directory: Path | None) -> Any:
    with _numba_cache_in(directory), signals_deferred():  # a stop during this import would get lost
        kernels = import_module("siftline.detectors.forest.kernels")
    if directory is not None:
        with suppress(OSError):
            if kernels.add_depths.stats.cache_path is not None:
                (directory / "compiled").touch()
            else:  # the cache is damaged: the next process compiles again
                (directory / "compiled").unlink(missing_ok=True)
                for damaged in directory.glob("*/"):
                    shutil.rmtree(damaged)
    return kernels


@contextmanager
def _numba_cache_in(directory: Path | None) -> Iterator[None]:
    """Set numba's cache directory; without one numba chooses its own."""
    from numba import config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(directory or before)
    try:
        yield
    finally:
        config.CACHE_DIR = before


@contextmanager
def _only_process(directory: Path | None) -> Iterator[bool]:
    """Lock the directory; give False if another process has it locked."""
    with ExitStack() as stack:
        alone = True
        if directory is not None:
            with suppress(StorageError):  # without a lock, each process compiles for itself
                alone = stack.enter_context(locked(directory / "lock"))
        yield alone


def _is_private(directory: Path) -> bool:
    """Return True for a directory of this user that is not world-writable."""
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & stat.S_IWOTH


def processor() -> list[str]:
    """Return the processor's model and features, on which compiled code depends."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0].splitlines() if info.exists() else []
    kept = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
    return [platform.machine(), platform.processor(), *(line for line in first if line.startswith(kept))]
