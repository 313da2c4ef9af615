"""Process of the kept Prefect server: it serves until it has been idle for a while."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from socket import socket

import uvicorn

from siftline.flows.new_database import make_database
from siftline.stack.kept_server import USERS, forget_kept_server
from siftline.storage.locks import try_lock
from siftline.tasks.adapters.settings import changed_settings

_LOOK_SECONDS = 1.0
_QUIET_SECONDS = 10.0
_REGISTERING_SECONDS = 60.0
# The first command need not wait for the catalogue of blocks. Prefect would note it as registered, for all
# servers of its home.
_LATER = {"register_blocks_on_start": False, "memoize_block_auto_registration": False}
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        gc.freeze()
        gc.enable()


def keep(home: Path, port: int, idle_seconds: float) -> None:
    """Serve the Prefect API and its pages on a port of this machine."""
    gc.disable()  # which would take a fifth of the start
    new = make_database()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    watch = threading.Thread(target=_watch, args=(home, server, idle_seconds, new), daemon=True)
    watch.start()
    with changed_settings(server=_LATER) if new else nullcontext():
        server.run()


def _watch(home: Path, server: _Server, idle_seconds: float, unregistered: bool) -> None:
    """Let the server end once its users have left it alone for long enough."""
    idle = 0.0
    while idle < idle_seconds:
        time.sleep(_LOOK_SECONDS)
        with (home / USERS).open("a") as users:
            idle = idle + _LOOK_SECONDS if try_lock(users) else 0.0
            if idle >= idle_seconds:  # while no command can take it up: the next one starts another
                forget_kept_server(home)
        if idle >= min(_QUIET_SECONDS, idle_seconds) and unregistered and server.loop is not None:
            unregistered = False
            try:
                registering = asyncio.run_coroutine_threadsafe(_register_blocks(), server.loop)
                registering.result(_REGISTERING_SECONDS)
            except Exception:  # noqa: BLE001  it serves all the same
                _log.exception("the types of blocks could not be registered")
    server.should_exit = True


async def _register_blocks() -> None:
    """Register the types of blocks, as Prefect does when it starts."""
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration

    session = await provide_database_interface().session()
    async with session:
        await run_block_auto_registration(session=session)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
