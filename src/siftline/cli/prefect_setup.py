"""Prefect in the process of a command: quiet, and with an embedded server that ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil

# Its standard input ends when our process does.
_GUARD = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGTERM)"
_guards: list[subprocess.Popen[bytes]] = []


def prepare_prefect(verbose: bool = False) -> None:
    """Set Prefect's environment, before Prefect is imported; the user's own settings stay."""
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if not verbose:
        # The server has the whole log; the terminal gets an error in one line.
        settings["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def end_server_with_us() -> None:
    """End an embedded server that this process started when this process ends, even if it is killed."""
    for child in psutil.Process().children():
        command: list[str] = []
        with suppress(psutil.NoSuchProcess):  # it has just ended
            command = child.cmdline()
        if any("prefect.server.api.server" in argument for argument in command):
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, str(child.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            _guards.append(guard)
