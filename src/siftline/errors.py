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
from typing import ClassVar, Literal, Self, TypeGuard

Fault = Literal["job", "chunk", "data", "resource", "transient", "worker"]


class SiftlineError(Exception):
    """Base of every error that Siftline raises on purpose.

    Parameters
    ----------
    problem : str
        What is wrong, and where.
    remedy : str
        What the user can do about it.

    Attributes
    ----------
    exit_status : int
        Of the command that ends with it.
    fault : str
        What kind of fault it is to a chunk; see above.
    recoverable : bool
        Whether the same job, run again, may do better without anybody's help.
    """

    exit_status: ClassVar[int] = 1
    fault: ClassVar[Fault] = "job"
    recoverable: ClassVar[bool] = False

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"

    def about(self, what: str) -> Self:
        """Return the same error, saying what it is about as well."""
        return type(self)(f"{what}: {self.problem}", *self.args[1:])


class InputError(SiftlineError):
    """What was given cannot be worked on."""

    exit_status = 2


class ConfigError(InputError):
    """The configuration is wrong; `problem` has one line for every mistake."""

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if "\n" in self.problem else super().__str__()


class SourceError(InputError):
    """The input data is missing, empty, or cannot be read."""

    fault: ClassVar[Fault] = "chunk"


class SourceChanged(SourceError):
    """A source file is no longer the one that the job was planned on."""

    fault: ClassVar[Fault] = "job"


class SourceUnavailable(SourceError):
    """A source file cannot be read just now."""

    fault: ClassVar[Fault] = "transient"
    recoverable: ClassVar[bool] = True


class FeatureError(InputError):
    """A column cannot serve as a feature, or holds a value that cannot be scored."""


class RowError(FeatureError):
    """Some rows cannot be digested.

    Parameters
    ----------
    problem, remedy : str
        As in every error.
    rows : tuple of int
        Positions of all the offending rows among those that were given, ascending; empty where they are
        not known.
    """

    fault: ClassVar[Fault] = "data"

    def __init__(self, problem: str, remedy: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, rows)
        self.rows = rows


class ModelError(InputError):
    """A detector's parameters or a fitted model cannot be used."""


class OutputConflict(InputError):
    """The output path is taken by something else."""


class UnknownJob(InputError):
    """There is no such job in the checkpoint."""


class StackError(SiftlineError):
    """A stack cannot be started, or one of its services cannot be kept running."""


class UnknownPipeline(InputError):
    """There is no such pipeline, or no such run, on the Prefect server."""


class JobError(SiftlineError):
    """The work failed."""

    recoverable: ClassVar[bool] = True


class ClusterError(JobError):
    """The cluster cannot be reached, or lost its workers."""


class WorkerLost(ClusterError):
    """The worker that had the work went away: killed, by this work or by something else."""

    fault: ClassVar[Fault] = "worker"


class ChunkTimeout(ClusterError):
    """A chunk took longer than it may; its worker was restarted."""

    fault: ClassVar[Fault] = "transient"


class OutOfMemory(JobError):
    """A chunk needs more memory than its worker has."""

    fault: ClassVar[Fault] = "resource"


class ApiError(JobError):
    """The Prefect API does not answer."""


class StorageError(JobError):
    """A file could not be written, or not be read back."""


class StorageUnavailable(StorageError):
    """A file could not be written or read just now."""

    fault: ClassVar[Fault] = "transient"


class IntegrityError(StorageError):
    """A persisted file is not what its digest or format version says."""


class PartDamaged(IntegrityError):
    """A part file is not what its receipt says."""


class CheckpointError(JobError):
    """A receipt could not be committed to the checkpoint."""

    fault: ClassVar[Fault] = "transient"


class ValidationFailed(JobError):
    """The result did not pass the audit; nothing was published.

    Parameters
    ----------
    problem, remedy : str
        As in every error.
    failures : tuple of str
        Every check that failed, in words.
    """

    recoverable: ClassVar[bool] = False

    def __init__(self, problem: str, remedy: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, failures)
        self.failures = failures


class JobBusy(JobError):
    """Another run is working on the job."""

    recoverable: ClassVar[bool] = False


class LeaseLost(JobError):
    """Another run has taken the job over, while this one did not give a sign of life."""

    recoverable: ClassVar[bool] = False


class GivenUp(JobError):
    """The job has failed as often as it may be taken up again."""

    recoverable: ClassVar[bool] = False


class StepFailed(JobError):
    """A step of the user's own failed, after the result was published."""

    recoverable: ClassVar[bool] = False


class IntervalSkipped(JobError):
    """A run came too late for its interval, and its schedule says that this is not made up for."""

    recoverable: ClassVar[bool] = False


class BackfillFailed(JobError):
    """Some intervals of a backfill failed."""

    recoverable: ClassVar[bool] = False


class Cancelled(JobError):
    """The run was stopped on request."""

    exit_status: ClassVar[int] = 130
    recoverable: ClassVar[bool] = False


_STORAGE_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: finished chunks are kept",
    errno.EDQUOT: "raise the quota and run the same command again: finished chunks are kept",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EACCES: "make it writable for this user, or choose another path",
    errno.EPERM: "make it writable for this user, or choose another path",
    errno.ENOTDIR: "a file is where a directory should be: choose another path",
    errno.EISDIR: "a directory is where a file should be: choose another path",
    errno.EEXIST: "a file is where a directory should be: choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
}


# What an error of the operating system says of the path itself; any other may pass.
_LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}


def may_pass(error: Exception) -> TypeGuard[OSError]:
    """Whether an error on reading a file may be gone the next time.

    pyarrow and others have OSErrors of their own, without a number: for files that are damaged.
    """
    return isinstance(error, OSError) and bool(error.errno) and error.errno not in _LASTING


def storage_error(error: OSError, path: object) -> StorageError:
    """Map an operating system's error on `path` to a `StorageError` with its remedy.

    What a person must put right is a plain `StorageError`; what may pass is a `StorageUnavailable`.
    """
    remedy = _STORAGE_REMEDIES.get(error.errno or 0)
    problem = f"{path}: {error.strerror or error}"
    if remedy is not None:
        return StorageError(problem, remedy)
    return StorageUnavailable(
        problem, "check the path and the disk, then run again: finished chunks are kept"
    )
