"""The tree of errors.

::

    SiftlineError
    ├── InputError                   invalid input (exit status 2)
    │   ├── ConfigError              the configuration is invalid: one line per mistake
    │   ├── SourceError              the input data is missing, empty or corrupt (chunk)
    │   │   ├── SourceChanged        a source file changed after planning
    │   │   └── SourceUnavailable    a source file cannot be read at the moment (transient)
    │   ├── FeatureError             a column, or a value in it, cannot be a feature
    │   │   └── RowError             rows that the preprocessing or the detector cannot handle (data)
    │   ├── ModelError               a detector or a fitted model cannot be used
    │   ├── OutputConflict           the output belongs to something else
    │   ├── UnknownJob               no such job in the checkpoint
    │   └── UnknownPipeline          no such pipeline or run on the server
    ├── StackError                   `siftline up` cannot start a service or keep it running (exit status 1)
    └── JobError                     the work failed (exit status 1)
        ├── ClusterError             no workers: unreachable, lost, or failed to start
        │   ├── WorkerLost           a worker died while it had the work (worker)
        │   └── ChunkTimeout         a chunk exceeded its time limit (transient)
        ├── OutOfMemory              a chunk needs more memory than there is (resource)
        ├── ApiError                 the Prefect API does not answer
        ├── StorageError             a file could not be written or read back
        │   ├── StorageUnavailable   temporarily: an I/O error, a lost mount (transient)
        │   └── IntegrityError       a persisted file does not match its digest
        │       └── PartDamaged      a part file does not match its receipt
        ├── CheckpointError          a receipt could not be committed (transient)
        ├── ValidationFailed         the result failed its audit; nothing was published
        ├── JobBusy                  another run is working on the job
        ├── LeaseLost                another run took over the job
        ├── GivenUp                  the job has used up its recoveries
        ├── WaitedTooLong            the run has waited for slots of a pool for too long
        ├── StepFailed               a custom step failed; the result is published
        ├── IntervalSkipped          a run started too late for its interval
        ├── BackfillFailed           some intervals of a backfill failed
        └── Cancelled                stopped on request (exit status 130)

The `fault` in brackets decides how a chunk that fails with the error is handled. *transient*: retry after a
delay; *worker*: retry alone; *resource*: split; *data*: find the offending rows and set them aside;
*chunk*: give up on the chunk, and count it. Any other error fails the job.

Every error has a `problem` (and its place) and a `remedy`, on one line, and survives pickling, because
errors travel from Dask workers to the coordinator.
"""

from __future__ import annotations

import errno
import warnings
from typing import Any, Literal, Self, TypeGuard

from siftline.shown import one_line, terminal_text

Fault = Literal["job", "chunk", "data", "resource", "transient", "worker"]


class SiftlineError(Exception):
    """Base of every error that Siftline raises on purpose.

    Parameters
    ----------
    problem : str
        The problem, and its place.
    remedy : str
        The fix, for the user.

    Attributes
    ----------
    exit_status : int
        Exit status of a command that fails with the error.
    fault : str
        Kind of fault of a chunk; see above.
    recoverable : bool
        True if the same job, run again, may succeed without a change.
    """

    exit_status: int = 1
    fault: Fault = "job"
    recoverable: bool = False

    def __init_subclass__(
        cls, exit_status: int | None = None, fault: Fault | None = None, recoverable: bool | None = None
    ) -> None:
        super().__init_subclass__()
        cls.exit_status = cls.exit_status if exit_status is None else exit_status
        cls.fault = cls.fault if fault is None else fault
        cls.recoverable = cls.recoverable if recoverable is None else recoverable

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return one_line(f"{self.problem}; {self.remedy}")

    def about(self, what: str) -> Self:
        """Return the same error with its subject in front of the problem."""
        return type(self)(f"{what}: {self.problem}", *self.args[1:])


class InputError(SiftlineError, exit_status=2):
    """Invalid input."""


class ConfigError(InputError):
    """The configuration is invalid; `problem` has one line per mistake."""

    def __str__(self) -> str:
        return terminal_text(f"{self.problem}\n{self.remedy}") if "\n" in self.problem else super().__str__()


class SourceError(InputError, fault="chunk"):
    """The input data is missing, empty or corrupt."""


class SourceChanged(SourceError, fault="job"):
    """A source file changed after planning."""


class SourceUnavailable(SourceError, fault="transient", recoverable=True):
    """A source file cannot be read at the moment."""


class FeatureError(InputError):
    """A column, or a value in it, cannot be a feature."""


class RowError(FeatureError, fault="data"):
    """Some rows cannot be handled: `rows` are their positions, ascending; empty if not known."""

    def __init__(self, problem: str, remedy: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, rows)
        self.rows = rows


class ModelError(InputError):
    """A detector or a fitted model cannot be used."""


class OutputConflict(InputError):
    """The output belongs to something else."""


class UnknownJob(InputError):
    """No such job in the checkpoint."""


class UnknownPipeline(InputError):
    """No such pipeline or run on the server."""


class StackError(SiftlineError):
    """A service of the stack cannot be started or kept running."""


class JobError(SiftlineError, recoverable=True):
    """The work failed."""


class ClusterError(JobError):
    """No workers: unreachable, lost, or failed to start."""


class WorkerLost(ClusterError, fault="worker"):
    """A worker died while it had the work."""


class ChunkTimeout(ClusterError, fault="transient"):
    """A chunk exceeded its time limit; its worker was restarted."""


class OutOfMemory(JobError, fault="resource"):
    """A chunk needs more memory than its worker has."""


class ApiError(JobError):
    """The Prefect API does not answer."""


class StorageError(JobError):
    """A file could not be written or read back."""


class StorageUnavailable(StorageError, fault="transient"):
    """A file cannot be written or read at the moment."""


class IntegrityError(StorageError):
    """A persisted file does not match its digest or format version."""


class PartDamaged(IntegrityError):
    """A part file does not match its receipt."""


class CheckpointError(JobError, fault="transient"):
    """A receipt could not be committed."""


class ValidationFailed(JobError, recoverable=False):
    """The result failed its audit: `failures` has every failed check in words. Nothing was published."""

    def __init__(self, problem: str, remedy: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, failures)
        self.failures = failures


class JobBusy(JobError, recoverable=False):
    """Another run is working on the job."""


class LeaseLost(JobError, recoverable=False):
    """Another run took over the job."""


class GivenUp(JobError, recoverable=False):
    """The job has used up its recoveries."""


class WaitedTooLong(JobError, recoverable=False):
    """The run has waited for slots of a pool for too long."""


class StepFailed(JobError, recoverable=False):
    """A custom step failed; the result is published."""


class IntervalSkipped(JobError, recoverable=False):
    """A run started too late for its interval."""


class BackfillFailed(JobError, recoverable=False):
    """Some intervals of a backfill failed: `intervals` has a row for every one of them."""

    def __init__(self, problem: str, remedy: str, intervals: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, intervals)
        self.intervals = intervals


class Cancelled(JobError, recoverable=False, exit_status=130):
    """The run was stopped on request."""


_STORAGE_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: finished chunks are kept",
    errno.EDQUOT: "raise the quota and run the same command again: finished chunks are kept",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EACCES: "make it writable for this user, or choose another path",
    errno.EPERM: "make it writable for this user, or choose another path",
    errno.ENOTDIR: "a file is where a directory should be: choose another path",
    errno.EISDIR: "a directory is where a file should be: choose another path",
    errno.EEXIST: "a file is where a directory should be: choose another path",
    errno.ELOOP: "a link is where a file or a directory should be: remove it",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}


def may_pass(error: Exception) -> TypeGuard[OSError]:
    """Return True if an error on reading a file may be gone the next time.

    OSErrors without a number, such as pyarrow's, mean a damaged file.
    """
    return isinstance(error, OSError) and bool(error.errno) and error.errno not in _LASTING


def storage_error(error: OSError, path: object) -> StorageError:
    """Map an OSError on `path` to a `StorageError`; to `StorageUnavailable` if it may pass."""
    problem = f"{path}: {error.strerror or error}"
    if error.errno in _STORAGE_REMEDIES:
        return StorageError(problem, _STORAGE_REMEDIES[error.errno])
    return StorageUnavailable(
        problem, "check the path and the disk, then run again: finished chunks are kept"
    )


class RenamedWarning(FutureWarning):
    """Former spelling that works in this release only."""


def renamed(old: str, new: str) -> None:
    """Warn of a former spelling."""
    warning = RenamedWarning(f"{old} is now {new}; the old spelling works in this release only")
    warnings.warn(warning, stacklevel=3)
