"""Process of the kept Prefect server: it serves until it has been idle for a while."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import uvicorn

from siftline.stack.kept_server import USERS, forget_kept_server
from siftline.storage.locks import try_lock

_LOOK_SECONDS = 1.0


def keep(home: Path, port: int, idle_seconds: float) -> None:
    """Serve the Prefect API and its pages on a port of this machine."""
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_start_on_one_core, args=(server,), daemon=True).start()
    threading.Thread(target=_watch, args=(home, server, idle_seconds), daemon=True).start()
    server.run()


def _start_on_one_core(server: uvicorn.Server) -> None:
    """Keep this process on one core until it serves: SQLite's statements go to a thread and back.

    The hundred migrations of a new database take half the time there.
    """
    if sys.platform != "linux":
        return
    cores = os.sched_getaffinity(0)
    _run_on({min(cores)})
    while not server.started:
        time.sleep(_LOOK_SECONDS / 20)
    _run_on(cores)


def _run_on(cores: Collection[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def _watch(home: Path, server: uvicorn.Server, idle_seconds: float) -> None:
    """Let the server end once its users have left it alone for long enough."""
    idle = 0.0
    while idle < idle_seconds:
        time.sleep(_LOOK_SECONDS)
        with (home / USERS).open("a") as users:
            idle = idle + _LOOK_SECONDS if try_lock(users) else 0.0
            if idle >= idle_seconds:  # while no command can take it up: the next one starts another
                forget_kept_server(home)
    server.should_exit = True


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
