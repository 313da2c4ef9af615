"""Prefect server of commands without an address: kept for the next one, ended when idle.

There is one for each home of Prefect. Commands hold a shared lock while they use it; the server's process
(`siftline.flows.keeper`) ends once it has had the lock to itself for long enough. Who finds none starts one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import IO

import psutil

from siftline.config.fields import parse_duration
from siftline.errors import ApiError, ConfigError
from siftline.stack.processes import Identity, end
from siftline.storage.files import digest
from siftline.storage.layout import Version
from siftline.storage.locks import await_lock, locked
from siftline.storage.records import Record, RecordFile
from siftline.system.imports import children_import_safely
from siftline.system.prefect_api import NO_TELEMETRY

# How long the server is kept without a command; `0` for not at all.
SETTING = "SIFTLINE_KEEP_SERVER"
_USUAL = "10m"
USERS = "users"
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.02
_END_SECONDS = 10.0
# A server for commands fires no schedules and no automations.
_SERVICES = (
    *("CANCELLATION_CLEANUP", "EVENT_LOGGER", "FOREMAN", "LATE_RUNS", "PAUSE_EXPIRATIONS"),
    *("REPOSSESSOR", "SCHEDULER", "TRIGGERS"),
)
# Prefect may have an address from these; it alone reads them right.
_SETTINGS_FILES = {"prefect.toml": b"", ".env": b"PREFECT_", "pyproject.toml": b"tool.prefect"}
_children: list[subprocess.Popen[bytes]] = []


class _Server(Record):
    """The kept server: process, port, and a digest of its settings at the start."""

    process: Identity
    port: int
    settings: str


@dataclass(frozen=True)
class KeptServer:
    """A kept server in use; it may still be starting."""

    address: str
    log: Path
    process: Identity

    def wait(self, seconds: float = 120.0) -> None:
        """Wait until it answers; raise `ApiError` if it ends or does not."""
        import httpx  # slow, and a server may start meanwhile

        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, verify=False, timeout=seconds) as client:  # noqa: S501  without TLS
            while self.process.find() is not None and time.monotonic() < deadline:
                try:
                    if client.get(f"{self.address}/health").is_success:
                        return
                except httpx.TransportError:
                    time.sleep(_POLL_SECONDS)
        remedy = f"see {self.log}; {SETTING}=0 starts one for each command"
        raise ApiError("the Prefect server for commands does not start", remedy)


@contextmanager
def kept_server(home: Path | None = None) -> Iterator[KeptServer | None]:
    """Use the kept server while the block runs; start it if there is none.

    Yield None where an address is configured, or a server shall not or cannot be kept.
    """
    idle = _idle_time()
    if not idle or _is_configured():
        yield None
        return
    home = home or server_home()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / USERS).open("a") as users:
        yield _use(home, users, idle)


def is_to_start(home: Path | None = None) -> bool:
    """Return True if a command would have to start the server."""
    if not _idle_time() or _is_configured():
        return False
    return _running(home or server_home()) is None


def end_kept_server(home: Path | None = None) -> bool:
    """End the kept server at once; return False if there is none."""
    home = home or server_home()
    found = _record(home).read_or(None)
    process = found.process.find() if found is not None else None
    forget_kept_server(home)
    if process is None:
        return False
    end(process, signal.SIGTERM, _END_SECONDS)
    return True


def server_home() -> Path:
    """Return the directory of the kept server, in the home of Prefect."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "siftline"


def _use(home: Path, users: IO[str], idle: timedelta) -> KeptServer | None:
    """Find the server, or start it; one command at a time does so."""
    with locked(home / "server.lock", _LOCK_SECONDS) as alone:
        # The server holds the lock of its users for a moment, in which it gives up.
        if not alone or not await_lock(users, _LOCK_SECONDS, shared=True):
            return None
        found = _running(home) or _start(home, idle)
        if found.settings != _settings():
            return None
        return KeptServer(f"http://127.0.0.1:{found.port}/api", home / "server.log", found.process)


def _running(home: Path) -> _Server | None:
    """Return the server that runs, if any."""
    found = _record(home).read_or(None)
    return found if found is not None and found.process.find() is not None else None


def _start(home: Path, idle: timedelta) -> _Server:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        **NO_TELEMETRY,
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _SERVICES},
    }
    with (home / "server.log").open("wb") as log, children_import_safely():
        process = subprocess.Popen(
            [sys.executable, "-m", "siftline.flows.keeper", str(home), str(port), str(idle.total_seconds())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **settings},
            start_new_session=True,
            umask=0o077,  # parameters of runs, in its database, may have secrets
        )
    started = _Server(process=Identity.of(psutil.Process(process.pid)), port=port, settings=_settings())
    _record(home).write(started)
    _children.append(process)  # without a warning at our end: it lives on
    return started


def _record(home: Path) -> RecordFile[_Server]:
    return RecordFile(home / "server.json", _Server, Version.KEPT_SERVER)


def forget_kept_server(home: Path) -> None:
    """Remove the record of a server that ends."""
    _record(home).path.unlink(missing_ok=True)


def _settings() -> str:
    """Return a digest of a server's settings: versions and environment."""
    given = sorted((name, value) for name, value in os.environ.items() if name.startswith("PREFECT_SERVER"))
    return digest([version("prefect"), version("siftline"), sys.executable, *map(str, given)])


def _idle_time() -> timedelta:
    text = os.environ.get(SETTING) or _USUAL
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{SETTING}: {error}", "write it like 10m, or 0 for not at all") from None


def _is_configured() -> bool:
    """Return True if Prefect may have an address, or settings in files of its own."""
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"):
        return True
    home = server_home().parent
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    files = {profiles: b"PREFECT_API_URL", **{Path(name): text for name, text in _SETTINGS_FILES.items()}}
    return any(_contains(path, text) for path, text in files.items())


def _contains(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True
