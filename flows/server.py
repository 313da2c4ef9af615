"""The Prefect API that a run started by hand reports to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import prefect
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL

from siftline.errors import ApiError, Cancelled, ConfigError

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


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """Give access to the server of ``PREFECT_API_URL``, and map what goes wrong with it to our own errors.

    Raises
    ------
    ApiError
        When there is none, it does not answer, or it is older than this Prefect.
    ConfigError
        When it refuses something.
    """
    if not PREFECT_API_URL.value():
        raise ApiError(
            "there is no Prefect server to talk to",
            "start one with `siftline up` or `prefect server start`, and set PREFECT_API_URL to its address",
        )
    reach_api()
    with get_client(sync_client=True) as client:
        try:
            _check_version(client)
            yield client
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:
                raise ApiError(
                    f"the Prefect API failed (status {error.response.status_code})", "see to the server's log"
                ) from error
            answer = " ".join(error.response.text.split())
            raise ConfigError(f"the Prefect server refuses it: {answer}", "correct it") from error
        except httpx.HTTPError as error:
            raise ApiError(
                f"the Prefect API does not answer ({type(error).__name__})",
                "see to the server, then try again",
            ) from error


def _check_version(client: SyncPrefectClient) -> None:
    theirs, ours = client.api_version(), prefect.__version__
    if _minor(theirs) < _minor(ours):
        raise ApiError(
            f"the Prefect server at {client.api_url} is version {theirs}, older than this Prefect, {ours}",
            "upgrade the server: Prefect supports clients of its own version or older",
        )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


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
