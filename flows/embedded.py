"""Embedded Prefect server: it ends with its starter, even a killed one."""

from __future__ import annotations

import subprocess
import sys

from prefect.server.api.server import SubprocessASGIServer

# Its standard input ends when our process does.
_GUARD = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGTERM)"
_guards: list[subprocess.Popen[bytes]] = []


def start_embedded_server() -> None:
    """Start the server of this process's clients without an address, once."""
    server = SubprocessASGIServer()
    if server.running:
        return
    run = server._run_uvicorn_command

    def guarded() -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = run()
        _guards.append(_guard(process.pid))
        return process

    server._run_uvicorn_command = guarded  # type: ignore[method-assign]
    server.start()


def _guard(server: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD, str(server)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
