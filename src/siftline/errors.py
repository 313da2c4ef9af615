"""What can go wrong, as one tree.

::

    SiftlineError
    ├── InputError               what was given cannot be worked on (exit status 2)
    │   ├── ConfigError          the configuration: one line for every mistake
    │   ├── SourceError          the input data: missing, empty, corrupt
    │   │   └── SourceChanged    a source file is not the one that was planned
    │   ├── FeatureError         a column that cannot be a feature, or a value in it
    │   ├── ModelError           a detector or a fitted model that cannot be used
    │   └── OutputConflict       the output belongs to something else
    └── JobError                 the work failed (exit status 1)
        ├── ClusterError         no workers: unreachable, lost, or not startable
        ├── ApiError             the Prefect API does not answer
        ├── StorageError         a file could not be written or read back
        │   └── IntegrityError   a persisted file is not what its digest says
        ├── CheckpointError      a receipt could not be committed
        └── ValidationFailed     the result did not pass the audit; nothing was published

Every error says what is wrong and where (`problem`) and what to do (`remedy`), in one line, and
survives pickling, because errors travel from Dask workers to the coordinator.
"""

from __future__ import annotations

import errno


class SiftlineError(Exception):
    """Base of every error that Siftline raises on purpose.

    Parameters
    ----------
    problem : str
        What is wrong, and where.
    remedy : str
        What the user can do about it.
    """

    exit_status = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class InputError(SiftlineError):
    """What was given cannot be worked on."""

    exit_status = 2


class ConfigError(InputError):
    """The configuration is wrong; `problem` has one line for every mistake."""

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if "\n" in self.problem else super().__str__()


class SourceError(InputError):
    """The input data is missing, empty, or cannot be read."""


class SourceChanged(SourceError):
    """A source file is no longer the one that the job was planned on."""


class FeatureError(InputError):
    """A column cannot serve as a feature, or holds a value that cannot be scored."""


class ModelError(InputError):
    """A detector's parameters or a fitted model cannot be used."""


class OutputConflict(InputError):
    """The output path is taken by something else."""


class JobError(SiftlineError):
    """The work failed."""


class ClusterError(JobError):
    """The cluster cannot be reached, or lost its workers."""


class ApiError(JobError):
    """The Prefect API does not answer."""


class StorageError(JobError):
    """A file could not be written, or not be read back."""


class IntegrityError(StorageError):
    """A persisted file is not what its digest or format version says."""


class CheckpointError(JobError):
    """A receipt could not be committed to the checkpoint."""


class ValidationFailed(JobError):
    """The result did not pass the audit; nothing was published.

    Parameters
    ----------
    problem, remedy : str
        As in every error.
    failures : tuple of str
        Every check that failed, in words.
    """

    def __init__(self, problem: str, remedy: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, failures)
        self.failures = failures


_STORAGE_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: finished chunks are kept",
    errno.EDQUOT: "raise the quota and run the same command again: finished chunks are kept",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EACCES: "make it writable for this user, or choose another path",
    errno.EPERM: "make it writable for this user, or choose another path",
}


def storage_error(error: OSError, path: object) -> StorageError:
    """Map an operating system's error on `path` to a `StorageError` with its remedy."""
    remedy = _STORAGE_REMEDIES.get(error.errno or 0, "check the path and the disk, then run again")
    return StorageError(f"{path}: {error.strerror or error}", remedy)
