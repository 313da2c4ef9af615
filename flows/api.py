"""The Prefect API that a run started by hand reports to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun

from siftline.errors import ApiError, Cancelled

T = TypeVar("T")

# Its standard input ends when the process does that has the other end of it.
_GUARD = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGTERM)"
_guards: list[subprocess.Popen[bytes]] = []


def reach_api() -> None:
    """Make sure that the API answers: the one of ``PREFECT_API_URL``, or else a server of our own.

    Raises
    ------
    ApiError
        When nobody answers.
    """
    remedy = "start it with `prefect server start`, correct PREFECT_API_URL, or unset it"
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise ApiError("the embedded Prefect server does not start", remedy) from error
    with client:
        silence = client.api_healthcheck()
        if silence is not None:
            raise ApiError(
                f"the Prefect API at {client.api_url} does not answer ({type(silence).__name__})",
                remedy,
            )


def called(run: Callable[[], T]) -> T:
    """Call a flow, and map what Prefect raises to our own errors.

    Raises
    ------
    Cancelled
        When the run was stopped.
    ApiError
        When the API is gone for longer than a run waits.
    """
    try:
        return run()
    except CancelledRun as error:
        remedy = "run the same command again to go on: finished chunks are kept"
        raise Cancelled("interrupted", remedy) from error
    except httpx.HTTPError as error:
        raise ApiError(
            f"the Prefect API was lost ({type(error).__name__})",
            "see `siftline jobs` for what is done, and run the same command again",
        ) from error


def end_server_with_us() -> None:
    """See to it that a server that this process started ends with it, even if it is killed."""
    for child in psutil.Process().children():
        if any("prefect.server.api.server" in argument for argument in child.cmdline()):
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, str(child.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            _guards.append(guard)
