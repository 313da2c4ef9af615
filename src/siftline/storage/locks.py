"""Locks between processes; the kernel releases them when their process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from siftline.errors import storage_error

_POLL_SECONDS = 0.05
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(path: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Lock a file, which is created, while the context is open.

    Yield False if another holder kept the lock for `seconds`; True on file systems without locks.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a", opener=open_own))
            alone = await_lock(file, seconds)
        except OSError as error:
            raise storage_error(error, path) from error
        yield alone is not False


def await_lock(file: IO[Any], seconds: float, shared: bool = False) -> bool | None:
    """Lock an open file as `try_lock` does, after a wait of at most some seconds."""
    deadline = time.monotonic() + seconds
    while (held := try_lock(file, shared)) is False and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def open_own(path: str, flags: int) -> int:
    """Open a file of our own: through no link, and without waiting for the reader of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def try_lock(file: IO[Any], shared: bool = False) -> bool | None:
    """Lock an open file without waiting: False if another holder has it, None without support for locks."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True
